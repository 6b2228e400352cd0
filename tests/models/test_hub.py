"""Model folders in the form of the hub: offline all the way; hub ids up to where the network is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from deqcert.errors import CheckpointError
from deqcert.models import MDEQ, MonDEQ, build, load_model, save_model, weights_digest
from deqcert.models.hub import is_hub_id

pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")

SMALL: dict[str, Any] = {"width": 6, "m": 2.0, "pool": 4}


def small(**changes: Any):
    return build("mondeq-conv", **{**SMALL, **changes}).eval()


@pytest.mark.parametrize("model", [small(), build("mdeq-digits", channels=(8, 8)).eval()])
def test_a_folder_and_back(tmp_path: Path, model) -> None:
    folder = model.save_pretrained(tmp_path / "model", card={"sigma": 0.5, "made": {"by": "us"}})
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    for again in (type(model).from_pretrained(folder), load_model(str(folder)), load_model(folder)):
        assert weights_digest(again) == weights_digest(model)
        assert again.card == {"sigma": 0.5, "made": {"by": "us"}}
        assert not again.training
    readme = (folder / "README.md").read_text()
    assert weights_digest(model) in readme
    assert "| sigma | 0.5 |" in readme
    assert "library_name: deqcert" in readme


def test_a_readme_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    small().save_pretrained(tmp_path)
    small().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    folder = small().save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match="holds a MonDEQ, not a MDEQ"):
        MDEQ.from_pretrained(folder)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write the model folder"):
        small().save_pretrained(tmp_path / "file" / "model")


def header(folder: Path, change: dict[str, Any]) -> None:
    """Write another configuration into both files of a folder."""
    file = folder / "model.safetensors"
    with safetensors.safe_open(file, framework="pt") as opened:
        told = json.loads(opened.metadata()["deqcert"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    for key, value in change.items():
        told[key] = {**told[key], **value} if isinstance(value, dict) else value
    text = json.dumps(told)
    safetensors.torch.save_file(tensors, file, metadata={"deqcert": text})
    (folder / "config.json").write_text(text)


HOSTILE: dict[str, dict[str, Any]] = {
    "gigantic": {"config": {"width": 10**9}},
    "large": {"config": {"width": 4000, "kernel": 101}},
    "negative": {"config": {"width": -6}},
    "of another type": {"config": {"width": "many"}},
    "not a number": {"config": {"m": float("nan")}},
    "of another shape": {"config": {"width": 5}},
    "unknown setting": {"config": {"code": "import os"}},
    "a table for a number": {"config": {"mean": {"a": 1}}},
    "unknown family": {"family": "os.system"},
    "no configuration": {"config": 3},
    "another format": {"format": 99},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_configuration_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = save_model(small(), tmp_path / "model")
    header(folder, change)
    for read in (load_model, MonDEQ.from_pretrained):
        with pytest.raises(CheckpointError) as caught:
            read(folder)
        assert "\n" not in str(caught.value)


def test_many_layers_of_a_few_weights_are_refused(tmp_path: Path) -> None:
    folder = save_model(build("mdeq-digits", channels=(8, 8)), tmp_path / "model")
    header(folder, {"config": {"channels": [8] * 3000, "stem_strides": [1, 1]}})
    with pytest.raises(CheckpointError, match="damaged configuration"):
        load_model(folder)


@pytest.mark.parametrize(
    "damage",
    ["no weights", "pickle", "truncated", "text", "deep", "other card", "not finite", "folder"],
)
def test_hostile_files_are_one_line(tmp_path: Path, damage: str) -> None:
    folder = save_model(small(), tmp_path / "model")
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage in ("no weights", "pickle", "folder"):
        weights.unlink()
    if damage == "pickle":
        torch.save({"weight": torch.zeros(3)}, folder / "pytorch_model.bin")
    if damage == "folder":
        weights.mkdir()
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-50])
    if damage == "text":
        config.write_text("<html>")
    if damage == "deep":
        config.write_text("[" * 200_000)
    if damage == "other card":
        config.write_text(config.read_text().replace('"width": 6', '"width": 7'))
    if damage == "not finite":
        tensors = safetensors.torch.load_file(weights)
        told = {"deqcert": config.read_text()}
        tensors = {name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}
        safetensors.torch.save_file(tensors, weights, metadata=told)
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mdeq-digits", "mondeq-fc-s050", "mdeq-small-s050"])
def test_what_ships_passes_the_guard(name: str) -> None:
    assert load_model(name).card


def test_hub_ids_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("someone/mdeq-digits")
    for path in ("mdeq-digits", "./a/b", "/a/b", "a/b/c", "a/b.safetensors", "a\\b", "a/", "~/b"):
        assert not is_hub_id(path), path
    (tmp_path / "models").mkdir()
    assert not is_hub_id("models/missing")
    with pytest.raises(CheckpointError, match=r"no checkpoint at models/missing"):
        load_model("models/missing")


LOAD = """
import sys
from deqcert.errors import DeqcertError
from deqcert.models import load_model
try:
    load_model("nobody/nothing")
except DeqcertError as error:
    print(error)
"""


def test_offline_a_hub_id_is_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", LOAD],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert said.stdout.startswith("there is no folder nobody/nothing, and as a hub id it cannot be")
    assert len(said.stdout.splitlines()) == 1


def test_without_the_hub_it_is_one_line(tmp_path: Path) -> None:
    code = "import sys; sys.modules['huggingface_hub'] = None" + LOAD
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert said.stdout == 'the hub needs huggingface_hub: pip install "deqcert[hub]"\n'
