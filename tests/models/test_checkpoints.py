"""Checkpoints: exact round trips, and one clear line for everything that is wrong with a file."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import stat
import struct

import pytest
import torch
from safetensors.torch import save_file

from deqcert.errors import CheckpointError, ConfigurationError, NumericalWarning
from deqcert.models import (
    MDEQ,
    build,
    from_classifier,
    load_model,
    load_weights,
    save_model,
    weights_digest,
)
from tests.models.made import tiny_mdeq, use_batch_statistics


def _model(**changes):
    model = tiny_mdeq(3, dropout=0.1, solver="anderson:7:0.01", **changes)
    use_batch_statistics(model, torch.rand(16, 2, 9, 7))
    return model


@pytest.mark.parametrize("place", ["model.safetensors", "folder", "deep/er/folder"])
def test_round_trip_is_exact(tmp_path, place):
    model = _model()
    path = save_model(model, tmp_path / place, card={"sigma": 0.25, "seed": 3})
    found = load_model(str(path))
    assert isinstance(found, MDEQ)
    assert found.config == model.config
    assert found.solver == model.solver
    assert found.card == {"sigma": 0.25, "seed": 3}
    assert not found.training
    assert weights_digest(found) == weights_digest(model)
    x = torch.rand(3, 2, 9, 7)
    with torch.no_grad():
        assert torch.equal(found(x), model(x))


def test_a_folder_holds_plain_json_and_safetensors(tmp_path):
    save_model(_model(), tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["family"] == "mdeq"
    assert config["config"]["channels"] == [4, 8, 4]


def test_files_have_ordinary_permissions(tmp_path):
    old = os.umask(0o022)
    try:
        path = save_model(_model(), tmp_path / "m.safetensors")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_digest_sees_names_types_shapes_and_bytes_and_nothing_else():
    # The definition, written out independently for one tensor.
    net = torch.nn.Linear(2, 1, bias=False)
    raw = struct.pack("<2f", *net.weight.detach().flatten().tolist())
    expected = hashlib.sha256(b"weight torch.float32 (1, 2)\n" + raw).hexdigest()
    assert weights_digest(net) == expected
    assert weights_digest(net.half()) != expected
    model = _model()
    digest = weights_digest(model)
    assert weights_digest(model.train()) == digest
    with torch.no_grad():
        model.stem.std[0, 0] += 1e-6
    assert weights_digest(model) != digest  # standardising is part of the classifier


def test_models_of_other_code_load_into_an_instance(tmp_path):
    def net():
        return from_classifier(
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)),
            num_classes=3,
            input_shape=(1, 2, 2),
        )

    first, second = net(), net()
    path = save_model(first, tmp_path / "net.safetensors", card={"sigma": 0.5})
    load_weights(second, path)
    assert weights_digest(second) == weights_digest(first)
    assert second.card == {"sigma": 0.5}
    with pytest.raises(CheckpointError, match="holds a '_Classifier', which only its own code can"):
        load_model(path)


def test_tied_weights_are_saved(tmp_path):
    tied = torch.nn.Linear(4, 4)
    model = from_classifier(
        torch.nn.Sequential(torch.nn.Flatten(), tied, tied), num_classes=4, input_shape=(1, 2, 2)
    )
    path = save_model(model, tmp_path / "tied.safetensors")
    load_weights(model, path)


def test_fresh_weights_of_a_stored_configuration(tmp_path):
    model = _model()
    path = save_model(model, tmp_path / "m.safetensors")
    fresh = load_model(path, pretrained=False)
    assert isinstance(fresh, MDEQ)
    assert fresh.config == model.config
    assert weights_digest(fresh) != weights_digest(model)
    assert fresh.card is None


def _one_line(path, *parts):
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message
    assert len(message) < 400


def test_missing(tmp_path):
    _one_line(tmp_path / "none.safetensors", "no checkpoint at")
    (tmp_path / "empty").mkdir()
    _one_line(tmp_path / "empty", "no checkpoint at")


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_truncated(tmp_path, keep):
    path = save_model(_model(), tmp_path / "m.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    _one_line(path, "truncated or not a safetensors file")


def test_foreign(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps({"weight": [1.0]}) * 10)
    _one_line(path, "truncated or not a safetensors file")
    save_file({"weight": torch.ones(2)}, tmp_path / "b.safetensors")
    _one_line(tmp_path / "b.safetensors", "has no deqcert header")
    for header, words in (
        ("{", "damaged header"),
        ("[1]", "checkpoint format [1], but 1 is supported"),
        ('{"format": 9}', "checkpoint format 9, but 1 is supported"),
        ('{"format": 1, "family": "mdeq"}', "damaged configuration"),
        ('{"format": 1, "family": "mdeq", "config": {"chanels": [8]}}', "did you mean 'channels'"),
        ('{"format": 1}', "'nameless'"),
    ):
        save_file({"w": torch.ones(2)}, tmp_path / "c.safetensors", metadata={"deqcert": header})
        _one_line(tmp_path / "c.safetensors", words)


def test_config_beside_other_weights(tmp_path):
    save_model(_model(), tmp_path / "run")
    other = save_model(build("mdeq-digits"), tmp_path / "other")
    (tmp_path / "run" / "config.json").write_text((other / "config.json").read_text())
    with pytest.raises(CheckpointError, match="describes another model than"):
        load_model(tmp_path / "run")


def test_weights_of_another_architecture(tmp_path):
    path = save_model(_model(), tmp_path / "m.safetensors")
    model = tiny_mdeq(3, expansion=3)
    before = weights_digest(model)
    with pytest.raises(
        CheckpointError, match=r"another architecture: it has other shapes: .*\(12,"
    ):
        load_weights(model, path)
    net = from_classifier(torch.nn.Flatten(), num_classes=3, input_shape=(1, 1, 3))
    net.register_buffer("scale", torch.ones(1))
    with pytest.raises(CheckpointError, match=r"it lacks scale, has left over .* and 1\d\d more$"):
        load_weights(net, path)
    assert weights_digest(model) == before


def test_weights_that_are_not_finite(tmp_path):
    model = _model()
    with torch.no_grad():
        model.head.linear.bias[1] = torch.nan
    path = save_model(model, tmp_path / "m.safetensors")
    _one_line(path, "not finite: head.linear.bias")


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = save_model(_model(), tmp_path / "m.safetensors")
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot write the checkpoint .*: No space left"):
        save_model(_model(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_unwritable_places_and_cards(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        save_model(_model(), tmp_path / "file" / "m.safetensors")
    with pytest.raises(ConfigurationError, match="card must hold what JSON can hold"):
        save_model(_model(), tmp_path / "m.safetensors", card={"model": object()})
    assert not (tmp_path / "m.safetensors").exists()


def test_a_card_of_other_weights_is_told(tmp_path):
    model = load_model("mdeq-digits")
    assert model.card["weights"] == weights_digest(model)
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    load_model(path)
    with torch.no_grad():
        next(model.parameters()).mul_(2.0)
    save_model(model, path)  # the card of before
    with pytest.warns(NumericalWarning, match=r"the card of .*model\.safetensors is about other"):
        load_model(path)
    with pytest.warns(NumericalWarning, match="is about other weights"):
        load_weights(model, path)
