"""Deterministic records: what must hold in the files alone, and certifying chosen images again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from deqcert.certificate import NORMS
from deqcert.checks.consistency import check_position, check_same, class_count
from deqcert.checks.counts import check_verdict
from deqcert.checks.problems import Place, Problem
from deqcert.checks.read import Found, Record, RunFiles
from deqcert.checks.settings import CERTAIN
from deqcert.deterministic import IntervalCertifier, LipschitzCertifier
from deqcert.deterministic.interval import PIXELS, IntervalSettings
from deqcert.deterministic.subject import EXACT, PRECISION, SHRINK
from deqcert.errors import DeqcertError
from deqcert.models import EquilibriumModel
from deqcert.results.configuration import configuration_differences
from deqcert.results.run_folder import RUN
from deqcert.solvers import SolverSpec

DeterministicCertifier = LipschitzCertifier | IntervalCertifier

# Field of the record: key of the configuration.
SAME = {
    "method": "method",
    "norm": "norm",
    "domain": "domain",
    "guarantee": "guarantee",
    "reference.weights_digest": "weights_digest",
}
CLASSIFIER = {"solver": EXACT, "precision": PRECISION, "margin": 0.0}
"""What every certificate is about: the exact equilibrium, without a margin."""

ELSEWHERE = 1e-6
"""Share by which a radius may differ where another machine or version rounds otherwise."""

WHY = {
    "prediction": "the model proves another class at this image, or none",
    "radius": "the proof gives another radius",
    "distance": "the state looked at lies elsewhere",
    "facts": "the proof rests on other numbers: other weights, settings or code",
    "cell_evaluations": "the record states another cost than it has",
}
_OTHER = "the record is not what the model gives"


def check_certain(
    place: Place, record: Mapping[str, Any], configuration: Mapping[str, Any]
) -> Iterator[Problem]:
    """Yield what contradicts the run, or itself, in one record of the right schema."""
    yield from check_same(place, record, configuration, SAME, {})
    why = "each of the two methods proves radii of one norm (THEORY 6)"
    yield from place.expect("norm", record["norm"], NORMS[record["method"]], why)
    for name, value in CLASSIFIER.items():
        why = "deterministic certificates are about the exact equilibrium of the real model"
        yield from place.expect(f"reference.{name}", record["reference"][name], value, why)
    classes = class_count(configuration, record["label"] + 1)
    yield from check_position(place, record, configuration, classes)
    if record["prediction"] is not None and record["prediction"] >= classes:
        why = "the run knows so many classes"
        yield place.problem("prediction", record["prediction"], f"below {classes}", why)
    yield from check_verdict(place, record)
    if record["prediction"] is None:
        why = "without a class nothing is certified"
        yield from place.expect("radius", record["radius"], 0.0, why)
    yield from _check_facts(place, record, configuration)


def _check_facts(
    place: Place, record: Mapping[str, Any], configuration: Mapping[str, Any]
) -> Iterator[Problem]:
    """Yield facts, costs and radii that the settings do not allow."""
    facts, kind = record["facts"], CERTAIN[record["method"]]
    names = [name for name in kind.__dataclass_fields__ if name in facts]
    for name in names:
        if name in configuration:
            why = f"the run in {RUN} has another {name}: the record is not of this run"
            yield from place.expect(f"facts.{name}", facts[name], configuration[name], why)
    try:
        settings = kind(**{name: facts[name] for name in names})
    except DeqcertError as error:
        why = "no run can have these settings"
        yield place.problem("facts", {name: facts[name] for name in names}, str(error), why)
        return
    if isinstance(settings, IntervalSettings):
        yield from _check_interval(place, record, settings)
        return
    most = 2 * SolverSpec.parse(settings.solver).max_steps + 2
    if not 1 <= record["cell_evaluations"] <= most:
        why = "the solver takes no more steps than that"
        yield place.problem("cell_evaluations", record["cell_evaluations"], f"in [1, {most}]", why)
    why = "the Lipschitz constant is the norm of the input map by m (THEORY 6.1)"
    constant = facts["input_norm"] / facts["m"] / SHRINK
    if not math.isclose(facts["lipschitz"], constant, rel_tol=1e-12):
        yield place.problem("facts.lipschitz", facts["lipschitz"], constant, why)


def _check_interval(
    place: Place, record: Mapping[str, Any], settings: IntervalSettings
) -> Iterator[Problem]:
    why = "what a bisection costs follows from its settings"
    cost = settings.cell_evaluations
    yield from place.expect("cell_evaluations", record["cell_evaluations"], cost, why)
    nearest = tried_radius(record["radius"], settings)
    why = "bisection tries halves of halves of the largest radius: this one was never tried"
    yield from place.expect("radius", record["radius"], nearest, why)


def tried_radius(radius: float, settings: IntervalSettings) -> float:
    """Return the radius nearest below, or at, the given one that a bisection can end with."""
    low, high = 0.0, settings.largest
    for _ in range(settings.halvings):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if middle <= radius else (low, middle)
    return low


def check_same_facts(files: RunFiles, found: list[Found]) -> Iterator[Problem]:
    """Yield facts of a record that are not those of the others: they are the model's alone."""
    if len(files.environments) != 1 or not found:
        return
    texts = [json.dumps(item.record["facts"], sort_keys=True) for item in found]
    usual = json.loads(max(set(texts), key=texts.count))
    for item in found:
        for name, old, new in configuration_differences(item.record["facts"], usual):
            why = "constants and norms are the model's: the same for all its images"
            yield item.place.problem(f"facts.{name}", old, new, why)


def deterministic_certifier_of(
    configuration: Mapping[str, Any], model: EquilibriumModel, *, batch_size: int | None
) -> DeterministicCertifier:
    """Return the certifier that a deterministic run's configuration describes.

    Raises:
        DeqcertError: The configuration, or the model, describes none.
    """
    settings = {
        name: configuration[name] for name in CERTAIN[configuration["method"]].__dataclass_fields__
    }
    if batch_size is not None:
        settings["batch_size"] = batch_size
    if configuration["method"] == "lipschitz":
        return LipschitzCertifier(model, **settings)
    within_pixels = settings.pop("domain") == PIXELS
    return IntervalCertifier(model, within_pixels=within_pixels, **settings)


def certify_again(
    certifier: DeterministicCertifier,
    image: Tensor,  # (C, H, W)
    place: Place,
    record: Record,
    *,
    exact: bool,
) -> Iterator[Problem]:
    """Certify the image again; yield every field that differs.

    Args:
        certifier: The run's certifier.
        image: The image.
        place: Where the record is.
        record: The record.
        exact: Whether to demand equality to the bit, in all fields but the seconds. Elsewhere only
            what is claimed is compared, and the last digits are not.
    """
    (found,) = certifier.certify(image[None], indices=[record["index"]])
    again = json.loads(json.dumps(found.to_json()))
    recorded = {name: record.get(name) for name in again}
    recorded["seconds"] = again["seconds"]
    for field, old, new in configuration_differences(recorded, again):
        name = field.partition(".")[0]
        if not exact and _may_differ(name, old, new, certifier):
            continue
        yield place.problem(field, old, new, f"certified again: {WHY.get(name, _OTHER)}")


def _may_differ(name: str, old: Any, new: Any, certifier: DeterministicCertifier) -> bool:
    """Whether a difference may come from other rounding elsewhere."""
    if name in ("distance", "cell_evaluations"):
        return True  # solves may end a step earlier or later
    if name == "facts":
        numbers = isinstance(old, float) and isinstance(new, float)
        return numbers and math.isclose(old, new, rel_tol=ELSEWHERE)
    if name == "radius":
        # A box at the edge may fall to the other side of it.
        settings = certifier.settings
        step = 2 * settings.resolution if isinstance(settings, IntervalSettings) else 0.0
        return math.isclose(old, new, rel_tol=ELSEWHERE, abs_tol=step)
    return False
