"""``deqcert import-checkpoint``, and what its model is good for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from deqcert.cli import app
from deqcert.data import SOURCES
from deqcert.data.sources import CIFAR10
from deqcert.models import load_model, weights_digest
from deqcert.results import RunFolder
from tests.models.public_mdeq import CONFIGURATIONS, random_weights

SMALL = CONFIGURATIONS["mdeq-small"]


def deqcert(*arguments: object) -> tuple[int, str, str]:
    """Run a command; return exit code, standard output, standard error."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A training checkpoint as the public training loop leaves it."""
    state = {f"module.{name}": tensor for name, tensor in random_weights(SMALL).items()}
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"epoch": 5, "state_dict": state, "optimizer": {"state": {}}}, path)
    return path


def _refused(*arguments: object) -> str:
    code, out, err = deqcert("import-checkpoint", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_the_report_names_what_was_taken(checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "model"
    rest = ("--arch", "mdeq-small", "--out", folder)
    code, out, err = deqcert("import-checkpoint", checkpoint, *rest)
    assert (code, err) == (0, "")
    model = load_model(folder)
    lines = out.splitlines()
    assert lines[0].startswith("mdeq-small from checkpoint.pth.tar (sha256 ")
    assert lines[1:] == [
        "taken over: 134 tensors, 249,883 parameters",
        "ignored: 2 entries of training state (epoch, optimizer)",
        "ignored: 18 num_batches_tracked counters",
        f"weights digest: {weights_digest(model)}",
        f"model in {folder}",
    ]


def test_an_imported_model_certifies_and_predicts(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, run = tmp_path / "model", tmp_path / "run"
    command = ("import-checkpoint", checkpoint, "--arch", "mdeq-small", "--out", folder)
    assert deqcert(*command, "--sigma", 0.5)[0] == 0
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3073), dtype=np.uint8)
    pixels[:, 0] %= 10
    (tmp_path / "test_batch.bin").write_bytes(pixels.tobytes())
    made = replace(SOURCES["cifar10"], read=replace(CIFAR10, checksums={}))
    monkeypatch.setitem(SOURCES, "cifar10", made)
    quick = ["--sigma", 0.5, "--n", 60, "--seed", 0, "--reference", "picard:3"]
    code, _, _ = deqcert(
        "certify", "--data", "cifar10", "--data-dir", tmp_path, "--model", folder, "--out", run,
        "--method", "standard", "--n0", 10, "--alpha", 0.05, *quick,
    )  # fmt: skip
    assert code == 0
    assert len(list(RunFolder.open(run).records())) == 2
    image = tmp_path / "image.png"
    Image.fromarray(pixels[0, 1:].reshape(3, 32, 32).transpose(1, 2, 0)).save(image)
    code, out, _ = deqcert("predict", "--model", folder, "--image", image, *quick)
    assert code == 0
    assert out.startswith(("class ", "abstain"))


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_bad_files_give_one_line_and_exit_code_2(checkpoint: Path, tmp_path: Path):
    out = tmp_path / "model"
    rest = ("--arch", "mdeq-small", "--out", out)
    assert "no checkpoint file at" in _refused(tmp_path / "none.pth", *rest)
    assert "did you mean 'mdeq-small'" in _refused(checkpoint, "--arch", "mdeq-smal", "--out", out)
    assert "is no mdeq-large: it lacks" in _refused(
        checkpoint, "--arch", "mdeq-large", "--out", out
    )
    assert "sigma must be finite and > 0" in _refused(checkpoint, *rest, "--sigma", 0)
    hostile, marker = tmp_path / "hostile.pth", tmp_path / "ran"
    torch.save({"state_dict": {}, "extra": _Hostile(marker)}, hostile)
    assert "nothing was run" in _refused(hostile, *rest)
    assert not marker.exists()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(checkpoint.read_bytes()[:50_000])
    assert "truncated or not a checkpoint written by torch" in _refused(cut, *rest)
    assert not out.exists()


def test_weights_of_another_import_are_not_overwritten(checkpoint: Path, tmp_path: Path):
    rest = ("--arch", "mdeq-small", "--out", tmp_path / "model")
    assert deqcert("import-checkpoint", checkpoint, *rest)[0] == 0
    assert deqcert("import-checkpoint", checkpoint, *rest)[0] == 0
    other = tmp_path / "other.pth"
    torch.save(random_weights(SMALL, seed=1), other)
    assert "holds other weights already" in _refused(other, *rest)
