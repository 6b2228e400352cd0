"""`deqcert tune`: what it reports of a reference is what that reference does."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import deqcert as dc
from deqcert.checks import tune
from deqcert.checks.tune import LIMITS, look_cost
from deqcert.cli import app
from deqcert.data import ArrayDataset
from deqcert.errors import ConfigurationError
from deqcert.models import solve_rows
from deqcert.smoothing import NoiseSource
from deqcert.solvers import SolverSpec
from tests.problems import LinearDEQ

IMAGES, COPIES, SIGMA = 120, 4, 0.5


@pytest.fixture(scope="module")
def found():
    return tune(
        dc.load_model("mdeq-digits-s050"),
        dc.load_data("digits", split="train"),
        sigma=SIGMA,
        most=6,
        images=IMAGES,
        copies=COPIES,
        seed=3,
    )


@pytest.fixture(scope="module")
def fresh():
    """Return the noisy images that measured (every second image), and their classes."""
    data = dc.load_data("digits", split="train")
    rows = np.linspace(0, len(data) - 1, IMAGES).astype(int)[1::2]
    images = []
    for row in rows:
        noise = NoiseSource(seed=3, index=int(row), shape=data.input_shape, sigma=SIGMA)
        images.append(data[int(row)].image + noise.draws("tune", range(COPIES)))
    return torch.cat(images), torch.tensor([data[int(r)].label for r in rows]).repeat_interleave(4)


def test_every_figure_is_that_of_the_reference_itself(found, fresh):
    """Solved from the start with its exits, on the same noisy images, which did not choose it."""
    noisy, truth = fresh
    classifier = dc.Certifier(
        dc.load_model("mdeq-digits-s050"), sigma=SIGMA, method="standard"
    ).classifier
    goal, _ = classifier.labelled(noisy, spec=SolverSpec.parse("anderson:30"))
    for choice in (*found.plain, *found.chosen):
        logits, solution = solve_rows(classifier.model, noisy, choice.reference)
        label = logits.argmax(1)
        assert choice.evaluations == pytest.approx(float(solution.steps.float().mean()))
        assert choice.differing == pytest.approx(float((label.numpy() != goal.label).mean()))
        assert choice.accuracy == pytest.approx(float((label == truth).float().mean()))
        assert choice.differing < choice.differing_upper


def test_exits_are_cheaper_than_the_steps_that_agree_as_often(found):
    cheapest = min(c.cost for c in found.plain if c.differing <= 0.005)
    reference = found.reference(0.005)
    chosen = next(c for c in found.chosen if c.reference == reference)
    assert SolverSpec.parse(reference).exits
    assert chosen.cost < 0.8 * cheapest
    assert chosen.differing <= 0.02


def test_fewer_other_labels_never_cost_less(found):
    by_name = {c.reference: c.evaluations for c in found.chosen}
    spent = [by_name[name] for name in found.chosen_for if name is not None]
    assert len(spent) >= 3
    assert all(later >= 0.95 * earlier for earlier, later in pairwise(spent))


def test_a_limit_between_two_takes_the_stricter_one(found):
    assert found.reference(0.015) == found.chosen_for[LIMITS.index(0.01)]
    assert found.reference(0.0001) is None


def test_a_model_whose_label_is_there_from_the_start_takes_one_step():
    """Every iterate of z / 2 + u has the sign of u."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 1, 1, 2), dtype=np.uint8)
    data = ArrayDataset(
        name="made",
        split="train",
        pixels=pixels,
        levels=255,
        labels=np.zeros(50, dtype=np.int64),
        class_names=("a", "b"),
        licence="none",
    )
    found = tune(LinearDEQ(), data, sigma=0.25, most=4, images=50, copies=2)
    assert found.chosen_for == ("picard:1",) * len(LIMITS)
    assert found.plain[0].differing == 0


def test_the_cost_of_a_look_is_that_of_the_published_head():
    """22.9 of 37.7 million operations (docs/engine.md)."""
    assert look_cost(dc.load_model("mdeq-small-s050")) == pytest.approx(22.9 / 37.7, rel=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 1}, "at least 2 images, but has 1"),
        ({"sigma": 0.0}, "sigma must be finite and > 0"),
        ({"most": 0}, "most must be an integer >= 1"),
        ({"copies": 0}, "copies must be an integer >= 1"),
        ({"against": "anderson"}, "name:steps"),
    ],
)
def test_bad_settings_are_refused(change, message):
    settings = {"sigma": 0.5, **change}
    with pytest.raises(ConfigurationError, match=message):
        tune(dc.load_model("mdeq-digits-s050"), dc.load_data("digits"), **settings)


def test_the_command_prints_a_reference_that_certify_takes(tmp_path: Path):
    out = tmp_path / "tuned" / "digits.json"
    options = ["--data", "digits", "--model", "mdeq-digits-s050", "--sigma", "0.5"]
    size = ["--max", "40", "--copies", "2", "--most", "4", "--out", str(out)]
    result = CliRunner().invoke(app, ["tune", *options, *size])
    assert result.exit_code == 0, result.output
    assert "looks" in result.output
    assert "% other labels: picard:" in result.output
    assert "(measured " in result.output
    content = json.loads(out.read_text())
    assert content["data"] == "digits"
    assert content["split"] == "train"
    reference = next(filter(None, content["chosen_for"]))
    run = ["certify", *options, "--method", "standard", "--n", "100", "--max", "2"]
    result = CliRunner().invoke(app, [*run, "--reference", reference, "--out", f"{tmp_path}/run"])
    assert result.exit_code == 0, result.output
    (tmp_path / "file").touch()
    beneath = [*size[:-1], str(tmp_path / "file" / "digits.json")]
    refused = CliRunner().invoke(app, ["tune", *options, *beneath])
    assert refused.exit_code == 2
    assert "a file is in its way" in refused.output
    again = CliRunner().invoke(app, ["tune", *options, *size])
    assert again.exit_code == 2
    assert "nothing is overwritten" in again.output
