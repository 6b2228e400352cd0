"""Curves of trainings: what real ones have logged, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from experiments.training_curve import read_training, table

from deqcert.data import load_data
from deqcert.errors import ConfigurationError
from deqcert.training import TrainConfig, TrainWatch, find_recipe, train
from experiments import training_curve
from tests.training.small import few_digits

DIGITS = few_digits(load_data("digits", split="train"), 200)
TEST = few_digits(load_data("digits", split="test"), 20)


def config() -> TrainConfig:
    return find_recipe("short-solve", model="mdeq-digits").config(
        sigma=0.5,
        epochs=2,
        pretrain_epochs=2,
        validate_every=1,
        validation_share=0.1,
        card_every=1,
        card_copies=1,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "little"
    train("mdeq-digits", DIGITS, out=path, config=config(), test=TEST)
    return path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def stop(record: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path_factory.mktemp("stopped") / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train("mdeq-digits", DIGITS, out=path, config=config(), watch=TrainWatch(finished=stop))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["training_curve", *arguments])
    training_curve.main()


def test_a_finished_training_has_its_epochs_and_the_numbers_of_its_card(finished: Path):
    card = json.loads((finished / "card.json").read_text())
    found = read_training(finished)
    assert [(epoch, draws) for epoch, draws, _ in found.held_out] == [(1, 20), (2, 20)]
    assert found.test == {
        k: card["test"]["accuracy_by_steps"][k] for k in ("1", "2", "3", "5", "30")
    }
    assert found.test_draws == card["test"]["images"] == 20
    assert found.accuracy == card["test"]["accuracy"]
    assert found.processor_hours == pytest.approx(card["processor_seconds"] / 3600, abs=1e-3)
    assert 0 < found.epoch_hours < 1
    # What it took, however long other work on the machine made it last.
    assert 2 * found.hours == pytest.approx(found.processor_hours)


def test_one_under_way_has_no_test_and_says_how_far_it_is(stopped: Path):
    found = read_training(stopped)
    assert (len(found.held_out), found.test, found.processor_hours) == (1, {}, None)
    assert "| 1 of 2 |" in table([found])
    assert found.hours == found.epoch_hours > 0


def test_epochs_count_where_nothing_is_held_out(stopped: Path, tmp_path: Path):
    lines = (stopped / "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        del record["validation"]
    (tmp_path / "training.json").write_text((stopped / "training.json").read_text())
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    found = read_training(tmp_path)
    assert (found.done, found.held_out) == (1, ())
    assert "| 1 of 2 |" in table([found])
    assert found.hours == found.epoch_hours > 0


def test_trainings_taken_one_after_the_other_are_drawn_together(
    finished: Path, stopped: Path, tmp_path: Path, monkeypatch, capsys
):
    run(monkeypatch, str(stopped), "--out", str(tmp_path))
    run(monkeypatch, str(finished), "--out", str(tmp_path))
    shown = capsys.readouterr().out
    run(monkeypatch, "--out", str(tmp_path))
    assert shown.endswith(capsys.readouterr().out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "curves.png",
        "little.json",
        "stopped.json",
        "table.md",
    ]
    rows = (tmp_path / "table.md").read_text().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == ["little", "stopped"]


def test_a_folder_of_something_else_is_one_line(tmp_path: Path, monkeypatch, capsys):
    with pytest.raises(ConfigurationError, match="is no training folder"):
        read_training(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "--out", str(tmp_path / "none"))
    assert "no training in" in capsys.readouterr().err
