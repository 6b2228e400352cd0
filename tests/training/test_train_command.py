"""`deqcert train`: a recipe by name or by model, options above it, one line for what is wrong."""

from __future__ import annotations

import json
import shlex

import pytest
import torch

from deqcert import cli
from deqcert.models import load_model, weights_digest
from deqcert.training import find_recipe


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["deqcert", "train", *arguments])
    torch.set_num_threads(1)
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


BASE = ("--data", "digits", "--model", "mdeq-digits", "--sigma", "0.5")
SINGLE = ("--precision", "float32")  # many processors multiply bfloat16 slowly


def test_a_recipe_by_name_with_options_above_it(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    more = (
        "--recipe",
        "short-solve",
        *SINGLE,
        "--epochs",
        "1",
        "--seed",
        "3",
        "--out",
        str(folder),
    )
    assert run(monkeypatch, *BASE, *more) == 0
    card = json.loads((folder / "card.json").read_text())
    recipe = find_recipe("short-solve", model="mdeq-digits")
    expected = recipe.config(sigma=0.5, epochs=1, seed=3, precision="float32")
    assert card["config"] == expected.to_dict()
    assert card["model"]["settings"] == {"dropout": 0.0, "solver": "picard:3"}
    assert shlex.split(card["command"]) == ["deqcert", "train", *BASE, *more]
    assert str(load_model(folder / "model.safetensors").solver) == "picard:3"
    assert card["test"]["images"] == 20, "every 20th"
    assert "trained model in" in capsys.readouterr().out


def test_the_recipe_of_the_model_is_the_default(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    config = tmp_path / "short.toml"
    config.write_text(
        "pretrain_epochs = 1\ncard_every = 40\nvalidation_copies = 1\ncard_copies = 1\n"
    )
    more = ("--epochs", "1", "--config", str(config), "--out", str(folder))
    assert run(monkeypatch, *BASE, *more) == 0
    settings = json.loads((folder / "training.json").read_text())
    expected = find_recipe("mdeq-digits", model="mdeq-digits").config(
        sigma=0.5,
        epochs=1,
        pretrain_epochs=1,
        card_every=40,
        validation_copies=1,
        card_copies=1,
        seed=0,
    )
    assert settings["config"] == expected.to_dict()
    assert "settings" not in settings["model"]


def test_it_starts_from_trained_weights(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    more = ("--weights", "mdeq-digits", "--minutes", "1e-6", "--out", str(folder))
    assert run(monkeypatch, *BASE, *more) == cli.PAUSED
    settings = json.loads((folder / "training.json").read_text())
    assert settings["model"]["start"] == weights_digest(load_model("mdeq-digits"))
    capsys.readouterr()
    assert run(monkeypatch, *BASE, "--out", str(folder)) == 2, "fresh weights are another run"
    assert "model.start" in capsys.readouterr().err


def test_time_that_is_up_is_no_error(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    more = ("--recipe", "short-solve", *SINGLE, "--epochs", "1")
    more += ("--minutes", "1e-6", "--out", str(folder))
    assert run(monkeypatch, *BASE, *more) == cli.PAUSED
    assert "epoch 1 of 1; the same command goes on from here" in capsys.readouterr().err
    assert run(monkeypatch, *BASE, *more[:-4], *more[-2:]) == 0
    assert (folder / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--recipe", "short-solv"), "short-solve"),
        (("--recipe", "published"), "mdeq-small, mdeq-large"),
        (("--recipe", "fine-tune"), "recipe fine-tune starts from trained weights"),
        (("--weights", "mdeq-mnist"), "of another architecture than mdeq-digits"),
        (("--weights", "mdeq-mnis"), "mdeq-mnist"),
        (("--epochs", "0"), "epochs must be an integer >= 1"),
    ],
)
def test_bad_settings_get_one_line_and_no_folder(tmp_path, monkeypatch, capsys, more, message):
    folder = tmp_path / "run"
    assert run(monkeypatch, *BASE, *more, "--out", str(folder)) != 0
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in " ".join(lines)
    assert not folder.exists()
