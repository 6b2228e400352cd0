"""The list of trainings: every one can be built, and slices of time lead to its weights."""

from __future__ import annotations

import pytest
from experiments.settings import available, read_study

from deqcert.cli import PAUSED
from deqcert.data import load_data
from deqcert.errors import ConfigurationError, UnknownNameError
from deqcert.models import load_model
from experiments import zoo

SMALL = """
[first]
data = "digits"
model = "mdeq-digits"
sigma = 0.5
recipe = "short-solve"
settings = { epochs = 1, pretrain_epochs = 1, precision = "float32", card_copies = 1 }

[second]
data = "digits"
model = "mdeq-digits"
sigma = 0.25
recipe = "short-solve"
settings = { epochs = 1, pretrain_epochs = 1, precision = "float32", card_copies = 1 }
"""


def test_every_training_of_the_list_has_valid_settings():
    wanted = zoo.read_wanted()
    assert len({one.name for one in wanted}) == len(wanted) >= 8
    for one in wanted:
        assert one.config.sigma == one.sigma
        assert one.config.epochs >= 100


def test_the_studies_want_what_is_trained_for_them():
    models = {row.model for name in available() for row in read_study(name, "full").rows}
    for one in zoo.read_wanted():
        if one.about.startswith("for the study"):
            assert one.name in models


def run(monkeypatch, tmp_path, *arguments: str) -> int:
    out = ("--out", str(tmp_path / "weights"))
    monkeypatch.setattr("sys.argv", ["zoo", *arguments, *out])
    try:
        zoo.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def small(tmp_path, monkeypatch):
    path = tmp_path / "zoo.toml"
    path.write_text(SMALL)
    read = zoo.read_wanted
    monkeypatch.setattr(zoo, "read_wanted", lambda: read(path))


def test_slices_go_through_the_list(tmp_path, monkeypatch, capsys, small):
    for steps in (1, 2):
        assert run(monkeypatch, tmp_path, "--minutes", "1e-12") == PAUSED
        assert f"first: paused after {steps} of" in capsys.readouterr().err
    assert run(monkeypatch, tmp_path) == 0
    for name in ("first", "second"):
        model = load_model(tmp_path / "weights" / name)
        assert model.input_shape == load_data("digits").input_shape
        assert model.card["command"] == f"python -m experiments.zoo {name}"
    assert run(monkeypatch, tmp_path) == 0, "nothing is left"
    assert run(monkeypatch, tmp_path, "--list") == 0
    assert capsys.readouterr().out.count("finished") == 2


def test_unknown_names_and_tables_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="first"):
        zoo.choose([zoo.Wanted(name="first", data="", model="", sigma=1, recipe="")], ["frist"])
    path = tmp_path / "zoo.toml"
    path.write_text("[a]\nsigmas = 1\n")
    with pytest.raises(ConfigurationError, match="a is no training"):
        zoo.read_wanted(path)
