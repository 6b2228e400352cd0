"""Deterministic runs: clean ones pass to the bit, and every seeded corruption is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from deqcert.checks import verify
from deqcert.checks.deterministic import tried_radius
from deqcert.deterministic import IntervalSettings
from deqcert.errors import ConfigurationError
from deqcert.models import MonDEQ
from tests.checks.forgeries import (
    OTHER,
    added_field,
    configuration,
    doubled,
    dropped,
    everywhere,
    record,
    relabelled,
    swapped_indices,
    up,
)
from tests.checks.runs import STEPS, Edit, Forgery, make_deterministic_run, monotone_model

METHODS = ("lipschitz", "interval")


def model_of(method: str) -> MonDEQ:
    return monotone_model("quadratic" if method == "lipschitz" else "absolute")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {method: make_deterministic_run(folder / method, method) for method in METHODS}


def forgery(original: Path, copy: Path) -> Forgery:
    """Copy a run; the record to tamper with is a correct one, not the first."""
    forged = Forgery.of(original, copy)
    forged.at = next(
        at for at, r in enumerate(forged.records) if at > 0 and r["correct"] and r["radius"] > 0
    )
    return forged


def fact(name: str, value: Any) -> Edit:
    """Return an edit of one fact in all records, and of the setting of that name."""

    def edit(forged: Forgery) -> None:
        for item in forged.records:
            item["facts"][name] = value
        if name in forged.configuration:
            forged.configuration[name] = value

    return edit


def uncertified(forged: Forgery) -> None:
    forged.record.update(prediction=None, correct=False, status="abstained")


def withheld(forged: Forgery) -> None:
    uncertified(forged)
    forged.record["radius"] = 0.0


def another_class(forged: Forgery) -> None:
    forged.record["prediction"] = (forged.record["prediction"] + 1) % 10
    forged.record["correct"] = False


def exchanged(forged: Forgery) -> None:
    """Give an image the certificate of the best one, with its own index and label."""
    best = max(forged.records, key=lambda item: item["radius"])
    own = {name: forged.record[name] for name in ("index", "label")}
    forged.records[forged.at] = {**json.loads(json.dumps(best)), **own}
    forged.record["correct"] = forged.record["prediction"] == own["label"]


def other_steps(forged: Forgery) -> None:
    fact("steps", STEPS + 1)(forged)
    for item in forged.records:
        item["cell_evaluations"] = item["cell_evaluations"] // STEPS * (STEPS + 1)


def larger_constant(forged: Forgery) -> None:
    """Claim a smaller Lipschitz constant, as m were larger, and the radii it would give."""
    for item in forged.records:
        item["facts"]["lipschitz"] /= 2
        item["facts"]["m"] *= 2
        item["radius"] *= 2


def one_more(forged: Forgery) -> None:
    step = 0.1 / 2**7
    forged.record["radius"] = tried_radius(
        forged.record["radius"] + 1.5 * step, IntervalSettings(largest=0.1, resolution=1e-3)
    )


def lost_field(forged: Forgery) -> None:
    del forged.record["guarantee"]


def lost_fact(forged: Forgery) -> None:
    del forged.record["facts"]["m"]


def lost_setting(forged: Forgery) -> None:
    del forged.configuration["norm"]


# Name: method, edit, field that must be named. The table is rewritten to match the forged records.
STATIC: dict[str, tuple[str, Edit, str]] = {
    "prediction changed": ("lipschitz", record("prediction", lambda c: (c + 1) % 10), "correct"),
    "certificate withheld": ("lipschitz", uncertified, "radius"),
    "a class that is none": ("lipschitz", record("prediction", lambda c: 10), "prediction"),
    "label changed": ("interval", record("label", lambda c: (c + 1) % 10), "correct"),
    "label changed, correct to match": ("interval", relabelled, "label"),
    "correct flipped": ("lipschitz", record("correct", lambda c: not c), "correct"),
    "status changed": ("interval", record("status", lambda s: "abstained"), "status"),
    "radius up by one ulp": ("interval", record("radius", up), "radius"),
    "radius down": ("interval", record("radius", lambda r: 0.9 * r), "radius"),
    "radius beyond the largest": ("interval", record("radius", lambda r: 0.2), "radius"),
    "radius below 0": ("lipschitz", record("radius", lambda r: -r), "radius"),
    "norm L2 to Linf": ("lipschitz", record("norm", lambda n: "Linf"), "norm"),
    "norm Linf to L2": ("interval", record("norm", lambda n: "L2"), "norm"),
    "norm everywhere": ("interval", everywhere("norm", "norm", "L2"), "configuration.norm"),
    "norm unknown": ("interval", record("norm", lambda n: "L1"), "norm"),
    "domain of one record": ("interval", record("domain", lambda d: "all"), "domain"),
    "method of one record": ("lipschitz", record("method", lambda m: "interval"), "facts.steps"),
    "method of the run": ("lipschitz", configuration("method", "interval"), "method"),
    "method of the run to one with noise": (
        "lipschitz",
        configuration("method", "standard"),
        "configuration.sigma",
    ),
    "guarantee of one record": (
        "lipschitz",
        record("guarantee", lambda g: "standard"),
        "guarantee",
    ),
    "guarantee of the run": (
        "interval",
        configuration("guarantee", "proved"),
        "configuration.guarantee",
    ),
    "weights of one record": (
        "lipschitz",
        record("reference.weights_digest", lambda d: OTHER),
        "reference.weights_digest",
    ),
    "weights everywhere": (
        "interval",
        everywhere("reference.weights_digest", "weights_digest", OTHER),
        "configuration.weights_digest",
    ),
    "a solver as the classifier": (
        "lipschitz",
        record("reference.solver", lambda s: "picard:9"),
        "reference.solver",
    ),
    "a precision of the classifier": (
        "interval",
        record("reference.precision", lambda p: "float64"),
        "reference.precision",
    ),
    "a margin": ("lipschitz", record("reference.margin", lambda m: 1e-6), "reference.margin"),
    "m of one record": ("lipschitz", record("facts.m", lambda m: 2 * m), "facts.m"),
    "constant of one record": (
        "lipschitz",
        record("facts.lipschitz", lambda c: c * (1 - 1e-15)),
        "facts.lipschitz",
    ),
    "constant everywhere": ("lipschitz", fact("lipschitz", 0.5), "facts.lipschitz"),
    "solver of one record": (
        "lipschitz",
        record("facts.solver", lambda s: "picard:80"),
        "facts.solver",
    ),
    "steps of one record": ("interval", record("facts.steps", lambda s: 60), "facts.steps"),
    "resolution of one record": (
        "interval",
        record("facts.resolution", lambda r: r / 2),
        "facts.resolution",
    ),
    "rate of one record": ("interval", record("facts.rate", lambda r: r / 2), "facts.rate"),
    "steps everywhere": ("interval", fact("steps", 60), "cell_evaluations"),
    "cost halved": ("interval", record("cell_evaluations", lambda c: c // 2), "cell_evaluations"),
    "cost beyond the solver": (
        "lipschitz",
        record("cell_evaluations", lambda c: 10**6),
        "cell_evaluations",
    ),
    "a distance that is none": ("lipschitz", record("distance", lambda d: -d - 1), "distance"),
    "index off the grid": ("lipschitz", record("index", lambda i: i + 1), "index"),
    "indices of two records swapped": ("interval", swapped_indices, "label"),
    "a second record of an image": ("lipschitz", doubled, "index"),
    "a record left out": ("lipschitz", dropped, "index"),
    "an unknown field": ("interval", added_field, "true_radius"),
    "an unknown fact": ("interval", record("facts", lambda f: {**f, "n": 1}), "facts.n"),
    "a missing field": ("lipschitz", lost_field, "guarantee"),
    "a missing fact": ("lipschitz", lost_fact, "facts.m"),
    "a missing setting": ("interval", lost_setting, "configuration.norm"),
    "data digest": ("lipschitz", configuration("data_digest", OTHER), "configuration.data_digest"),
    "split": ("interval", configuration("split", "train"), "configuration.data_digest"),
    "class names": (
        "lipschitz",
        configuration("class_names", ["0", "1"]),
        "configuration.class_names",
    ),
    "skip": ("interval", configuration("skip", 20), "index"),
    "a solver no run can have": ("lipschitz", configuration("solver", "picard"), "facts.solver"),
    "steps no run can have": ("interval", configuration("steps", 0), "configuration"),
    "a largest radius no run can have": (
        "interval",
        configuration("largest", 10**30),
        "configuration",
    ),
}

REPLAYED: dict[str, tuple[str, Edit, str]] = {
    "radius up by one ulp": ("lipschitz", record("radius", up), "radius"),
    "radius down": ("lipschitz", record("radius", lambda r: r * 0.9), "radius"),
    "a radius one step further": ("interval", one_more, "radius"),
    "another class, with its label": ("lipschitz", another_class, "prediction"),
    "another class, in a box": ("interval", another_class, "prediction"),
    "a certificate withheld": ("interval", withheld, "prediction"),
    "the certificate of another image": ("lipschitz", exchanged, "radius"),
    "the box of another image": ("interval", exchanged, "distance"),
    "distance": ("lipschitz", record("distance", lambda d: d / 2), "distance"),
    "another solver everywhere": ("lipschitz", fact("solver", "picard:41:1e-07"), "distance"),
    "other steps everywhere": ("interval", other_steps, "distance"),
    "another constant, and its radii": ("lipschitz", larger_constant, "facts.m"),
    "another rate everywhere": ("interval", fact("rate", 0.25), "facts.rate"),
    "all images instead of pixels": (
        "interval",
        everywhere("domain", "domain", "all"),
        "radius",
    ),
    "cost": ("lipschitz", record("cell_evaluations", lambda c: c - 1), "cell_evaluations"),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_an_untouched_run_is_clean_and_certifies_again_to_the_bit(runs, method: str):
    found = verify(runs[method], model=model_of(method), replays=3, indices=[40])
    assert found.clean, found.problems
    assert found.records == 10
    assert len(found.replayed) == 4
    assert 40 in found.replayed
    assert found.notes == ()
    alone = verify(runs[method])
    assert alone.clean
    assert any("weights were not checked" in note for note in alone.notes)
    assert any("nothing was replayed" in note for note in alone.notes)


@pytest.mark.parametrize("name", STATIC)
def test_corruptions_are_found_in_the_files(runs, tmp_path: Path, name: str):
    method, edit, field = STATIC[name]
    forged = forgery(runs[method], tmp_path / "run")
    edit(forged)
    index = forged.record["index"]
    forged.save()
    found = verify(tmp_path / "run", model=model_of(method))
    named = [problem for problem in found.problems if problem.field == field]
    assert named, found.problems
    alone = name in ("a record left out", "skip", "indices of two records swapped")
    if not field.startswith("configuration") and not alone:
        assert index in {problem.index for problem in named}
    assert all(problem.why and problem.place for problem in found.problems)
    assert all(problem.recorded != problem.recomputed for problem in named)


@pytest.mark.parametrize("name", REPLAYED)
def test_consistent_forgeries_are_found_by_certifying_again(runs, tmp_path: Path, name: str):
    method, edit, field = REPLAYED[name]
    forged = forgery(runs[method], tmp_path / "run")
    edit(forged)
    index = forged.record["index"]
    forged.save()
    static = verify(tmp_path / "run", model=model_of(method))
    assert static.clean, static.problems  # nothing but the model can tell
    found = verify(tmp_path / "run", model=model_of(method), indices=[index])
    named = [p for p in found.problems if p.field == field and p.index == index]
    assert named, found.problems
    assert found.replayed == (index,)


@pytest.mark.parametrize("method", METHODS)
def test_elsewhere_the_last_digits_are_not_judged_and_claims_are(runs, tmp_path, method: str):
    forged = forgery(runs[method], tmp_path / "run")
    forged.content["environments"][0].update(torch="2.0", commit="0" * 40)
    index = forged.record["index"]
    forged.record["distance"] *= 1.01
    if method == "lipschitz":
        forged.record["radius"] *= 1 + 1e-12
    forged.save()
    found = verify(forged.path, model=model_of(method), indices=[index])
    assert found.clean, found.problems
    assert any("torch '2.0' there" in note for note in found.notes)
    forged.record["radius"] += 4 * 0.1 / 2**7
    forged.save()
    found = verify(forged.path, model=model_of(method), indices=[index])
    assert [p.field for p in found.problems] == ["radius"]


def test_what_makes_no_sense_for_them_is_refused(runs):
    with pytest.raises(ConfigurationError, match="no draws to test"):
        verify(runs["lipschitz"], model=model_of("lipschitz"), draws=10)
    with pytest.raises(ConfigurationError, match="needs the model"):
        verify(runs["interval"], replays=1)


def test_a_model_of_another_kind_is_named(runs):
    found = verify(runs["interval"], model=model_of("lipschitz"), replays=1)
    fields = [problem.field for problem in found.problems]
    assert fields[0] == "configuration.weights_digest"
    assert "configuration.architecture.constraint" in fields
    assert found.replayed == ()
    assert math.isfinite(found.seed or math.nan)
