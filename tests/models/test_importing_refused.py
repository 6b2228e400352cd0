"""Public checkpoints that are refused: foreign, damaged, hostile, of other sizes."""

from __future__ import annotations

import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from deqcert.errors import CheckpointError, ConfigurationError, UnknownNameError
from deqcert.models import convert_checkpoint, import_checkpoint
from tests.models.public_mdeq import CONFIGURATIONS, random_weights

SMALL = CONFIGURATIONS["mdeq-small"]


@pytest.fixture(scope="module")
def weights():
    return random_weights(SMALL)


def _refused(path, *parts, architecture="mdeq-small"):
    with pytest.raises(CheckpointError) as caught:
        import_checkpoint(path, architecture=architecture)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message
    assert len(message) < 900


class _Hostile:
    """Unpickling it creates a file."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("beside", [True, False])
def test_a_hostile_file_is_refused_and_not_run(weights, tmp_path, zipped, beside):
    marker, path = tmp_path / "ran", tmp_path / "hostile.pth.tar"
    evil = _Hostile(str(marker))
    content = {"state_dict": weights, "epoch": evil} if beside else {**weights, "classifier": evil}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    _refused(path, "asks for", "mkdir", "nothing was run")
    assert not marker.exists()
    torch.load(path, weights_only=False)  # it is hostile indeed
    assert marker.exists()


def test_a_hostile_plain_pickle_is_refused_and_not_run(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "hostile.pkl"
    path.write_bytes(pickle.dumps(_Hostile(str(marker))))
    _refused(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()


def test_a_pickled_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    _refused(tmp_path / "module.pth", "asks for torch.nn.modules.linear.Linear")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.0, 1e-5, 0.01, 0.5, 0.999])
def test_truncated(weights, tmp_path, kept, zipped):
    path = tmp_path / "cut.pth.tar"
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    _refused(path, "truncated or not a checkpoint written by torch")


def test_flipped_bits_in_tensors_are_seen(weights, tmp_path):
    path = tmp_path / "flipped.pth.tar"
    torch.save(weights, path)
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + largest.file_size // 2] ^= 1
    path.write_bytes(content)
    _refused(path, f"is damaged: the checksum of {largest.filename}")


def test_not_a_torch_file(tmp_path):
    _refused(tmp_path / "none.pth", "no checkpoint file at")
    _refused(tmp_path, "no checkpoint file at")
    for name, content in (("text.pth", b"<html>quota exceeded</html>"), ("gif.pth", b"GIF89a" * 9)):
        (tmp_path / name).write_bytes(content)
        _refused(tmp_path / name, "truncated or not a checkpoint written by torch")
    save_file({"w": torch.ones(2)}, tmp_path / "w.pth")
    _refused(tmp_path / "w.pth", "truncated or not a checkpoint written by torch")


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), 5, None, {"state_dict": {"model": {}}}])
def test_torch_files_without_a_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    words = "lacks downsample.0.weight" if isinstance(content, dict) else "not a state dict"
    _refused(tmp_path / "other.pth", words)


def test_foreign_files_are_refused_with_what_is_missing_or_left_over(weights, tmp_path):
    path = tmp_path / "foreign.pth.tar"
    torch.save({"state_dict": torch.nn.Linear(4, 2).state_dict()}, path)
    _refused(
        path,
        "is no mdeq-small: it lacks downsample.0.weight, downsample.1.weight, downsample.1.bias "
        "and 131 more; has left over weight, bias",
    )
    torch.save({**weights, "last_layer.0.weight": torch.ones(3)}, path)
    _refused(path, "is no mdeq-small: it has left over last_layer.0.weight")
    lacking = {k: v for k, v in weights.items() if k != "stage0.1.running_var"}
    torch.save(lacking, path)
    _refused(path, "is no mdeq-small: it lacks stage0.1.running_var")
    torch.save(weights, path)
    _refused(path, "is no mdeq-large: it lacks fullstage.branches.3", architecture="mdeq-large")


def test_another_number_of_classes(weights, tmp_path):
    path = tmp_path / "c100.pth.tar"
    hundred = {"classifier.weight": torch.randn(100, 200), "classifier.bias": torch.randn(100)}
    torch.save({**weights, **hundred}, path)
    _refused(path, "tells 100 classes apart, but mdeq-small has 10")


def test_wrong_shapes(weights, tmp_path):
    path = tmp_path / "shapes.pth.tar"
    torch.save({**weights, "stage0.0.weight": torch.ones(8, 8, 3, 3)}, path)
    _refused(path, "it has other shapes: stage0.0.weight (8, 8, 3, 3) for (8, 8, 1, 1)")
    torch.save({**weights, "classifier.weight": torch.ones(())}, path)
    _refused(path, "it has other shapes: classifier.weight () for (10, 200)")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("classifier.bias", torch.full((10,), torch.nan), "not finite: classifier.bias"),
        ("classifier.bias", torch.full((10,), 1e300, dtype=torch.float64), "not finite"),
        ("downsample.1.running_var", -torch.ones(8), "variances below 0: downsample.1.running_var"),
        (
            "fullstage.post_fuse_layers.0.conv.weight_v",
            torch.zeros(8, 8, 1, 1),
            "filters without a direction: fullstage.post_fuse_layers.0.conv.weight_v",
        ),
        ("classifier.bias", torch.ones(10, dtype=torch.int64), "classifier.bias as torch.int64"),
        ("classifier.bias", torch.ones(10).to_sparse(), "torch.sparse_coo"),
        ("module.classifier.bias", torch.ones(10), "classifier.bias twice"),
    ],
)
def test_unusable_numbers(weights, tmp_path, name, value, words):
    torch.save({**weights, name: value}, tmp_path / "bad.pth")
    _refused(tmp_path / "bad.pth", words)


def test_settings_out_of_range(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'mdeq-large'"):
        import_checkpoint(tmp_path / "x", architecture="mdeq-lagre")
    with pytest.raises(UnknownNameError, match="public architecture 'mdeq-digits'"):
        import_checkpoint(tmp_path / "x", architecture="mdeq-digits")
    with pytest.raises(ConfigurationError, match="sigma must be finite and > 0, but got -1"):
        import_checkpoint(tmp_path / "x", architecture="mdeq-small", sigma=-1)


def test_unwritable_places(weights, tmp_path):
    torch.save(weights, tmp_path / "a.pth")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "file" / "x", architecture="mdeq-small")
