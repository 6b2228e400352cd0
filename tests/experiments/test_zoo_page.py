"""docs/zoo.md says what cards and committed results say."""

from __future__ import annotations

import json

from experiments import zoo_page


def test_the_page_is_up_to_date():
    text = zoo_page.PAGE.read_text(encoding="utf-8")
    assert text == zoo_page.page(text), "run python -m experiments.zoo_page"


def test_it_shows_every_shipped_model_and_every_study():
    text = zoo_page.PAGE.read_text(encoding="utf-8")
    shipped = [path.stem for path in zoo_page.WEIGHTS.glob("*.safetensors")]
    assert len(shipped) >= 11
    for name in shipped:
        assert f"| `{name}` |" in text
    for path in zoo_page.RESULTS.glob("*/table.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["title"] in text


def test_trainings_are_shown_once_there_are_any(tmp_path):
    assert list(zoo_page.trainings(tmp_path)) == []
    for name in ("training", "equal-training"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.md").write_text(f"| {name} |\n")
    picture, *tables = zoo_page.trainings(tmp_path)
    assert picture.endswith("/training/curves.png)\n")
    assert tables == ["| training |\n", "| equal-training |\n"]


def test_rows_without_a_guarantee_say_so():
    row = {
        "title": "published",
        "guarantees": {"none": 3},
        "images": 3,
        "accuracy": [0.5],
        "average_radius": 0.25,
        "cell_evaluations": 12345.6,
        "seconds": 1.0,
    }
    assert zoo_page._row(row, ["-", "-"]) == [
        "published **NO GUARANTEE**", "3", "50", "0.250", "12,346", "1",
    ]  # fmt: skip


def test_of_untrained_weights_no_accuracy_is_shown():
    row = {
        "title": "random",
        "guarantees": {"standard": 2},
        "images": 2,
        "accuracy": None,
        "average_radius": None,
        "cell_evaluations": 16,
        "seconds": 2.5,
    }
    assert zoo_page._row(row, ["-", "-"]) == ["random", "2", "-", "-", "16", "2.5"]
    alone = zoo_page._study([row], [0.0, 0.5])
    assert alone.splitlines()[0] == "| model, method | images | cell evaluations | seconds |"
    assert alone.splitlines()[2] == "| random | 2 | 16 | 2.5 |"
