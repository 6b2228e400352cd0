"""Ways to tamper with a run: name, method of the run, edit, field that `verify` must name.

``STATIC`` ones are seen in the files alone; ``REPLAYED`` ones add up, and only noise can tell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from deqcert.smoothing import NOISE_STREAM
from deqcert.smoothing.streams import DEVICE_STREAM
from tests.checks.runs import Edit, Forgery

OTHER = "ab" * 32


def record(field: str, change: Callable, *, refit: bool = False) -> Edit:
    """Return an edit of one field of the subject's record; dots reach into tables."""

    def edit(forged: Forgery) -> None:
        table = forged.record
        *outer, name = field.split(".")
        for key in outer:
            table = table[key]
        table[name] = change(table[name])
        if refit:
            forged.refit()

    return edit


def everywhere(field: str, key: str, value: Any, *, refit: bool = False) -> Edit:
    """Return an edit of one setting in all records and in run.json, all refitted."""

    def edit(forged: Forgery) -> None:
        forged.configuration[key] = value
        for at, item in enumerate(forged.records):
            outer, _, inner = field.partition(".")
            if inner:
                item[outer][inner] = value
            else:
                item[outer] = value
            forged.at = at
            if refit:
                forged.refit()
        forged.at = 1

    return edit


def up(value: float) -> float:
    return math.nextafter(value, math.inf)


def moved(forged: Forgery) -> None:
    """Give the class five labels of another one; every number that follows is made to follow."""
    counts, best = forged.record["counts"], forged.record["prediction"]
    other = max((c for c in range(10) if c != best), key=counts.__getitem__)
    counts[best] += 5
    counts[other] -= 5
    forged.record["count"] += 5
    if forged.record["audit"]:
        forged.record["audit"]["population"] += 5
    forged.refit()


def more_labels_than_draws(forged: Forgery) -> None:
    forged.record["counts"][forged.record["prediction"]] += 1
    forged.record["count"] += 1
    forged.refit()


def another_selection(forged: Forgery) -> None:
    forged.record["counts0"][0] = 1 + max(forged.record["counts0"])


def selected_once_less(forged: Forgery) -> None:
    forged.record["counts0"][forged.record["prediction"]] -= 1


def relabelled(forged: Forgery) -> None:
    forged.record["label"] = (forged.record["label"] + 1) % 10
    forged.record["correct"] = False


def fewer_disagreements(forged: Forgery) -> None:
    forged.record["audit"]["disagreements"] -= 1
    forged.record["count"] += 1
    forged.refit()


def larger_audit(forged: Forgery) -> None:
    """Pretend more draws were audited, as if that had been asked for."""
    for item in forged.records:
        item["plan"]["audit"] = 200
        item["audit"]["drawn"] = min(200, item["audit"]["population"])
    forged.configuration["audit"] = 200
    for at in range(len(forged.records)):
        forged.at = at
        forged.refit()
    forged.at = 1


def no_audit(forged: Forgery) -> None:
    """Pass serialized labels off as independent ones."""
    record = forged.record
    record.update(audit=None, guarantee="standard", serial=None, warmup=None, start=None)
    record.update(chains=None, alpha_count=record["alpha"], alpha_audit=0.0)
    record["plan"] = {"method": "standard", "reason": "requested"}
    record["count"] = record["counts"][record["prediction"]]
    forged.refit()


def upgraded(forged: Forgery) -> None:
    """Pass the published rule off as an audited one, in every field that says so."""
    forged.configuration.update(method="srs", audit="auto")
    for at, item in enumerate(forged.records):
        item.update(method="srs", guarantee="audited", alpha_count=None, alpha_audit=None)
        item["plan"] = {"method": "srs", "rule": "theorem-a-joint", "weight": 0.6, "strip": 0.02}
        item["plan"]["audit"] = item["audit"]["drawn"]
        item["count"] -= item["audit"]["disagreements"]
        forged.at = at
        forged.refit()
    forged.at = 1


def exchanged(forged: Forgery) -> None:
    """Give an image the certificate of another one, with its own index and label."""
    best = max(forged.records, key=lambda item: item["radius"])
    own = {name: forged.record[name] for name in ("index", "label")}
    forged.records[forged.at] = {**json.loads(json.dumps(best)), **own}
    forged.refit()


def swapped_indices(forged: Forgery) -> None:
    a, b = forged.records[1], forged.records[3]
    a["index"], b["index"] = b["index"], a["index"]


def swapped_lines(forged: Forgery) -> None:
    forged.save()
    forged.records[1], forged.records[2] = forged.records[2], forged.records[1]


def dropped(forged: Forgery) -> None:
    del forged.records[4]


def doubled(forged: Forgery) -> None:
    forged.records.insert(forged.at + 1, json.loads(json.dumps(forged.record)))


def added_field(forged: Forgery) -> None:
    forged.record["true_radius"] = 2.0


def lost_field(forged: Forgery) -> None:
    del forged.record["audit"]


def certified_abstention(forged: Forgery) -> None:
    forged.record.update(prediction=None, correct=False, status="abstained")


def configuration(key: str, value: Any) -> Edit:
    def edit(forged: Forgery) -> None:
        forged.configuration[key] = value

    return edit


def shared_by_hand(forged: Forgery) -> None:
    """Claim Theorem A for an audit of a part, with shares picked afterwards."""
    plan, alpha = forged.record["plan"], forged.record["alpha"]
    forged.record["plan"] = {k: v for k, v in plan.items() if k not in ("weight", "strip")}
    forged.record["plan"]["rule"] = "theorem-a"
    forged.record.update(alpha_count=0.25 * alpha, alpha_audit=0.75 * alpha)
    forged.record["audit"]["upper_bound"] = None
    forged.refit()


def lost_setting(forged: Forgery) -> None:
    del forged.configuration["chains"]


# Name: method, edit, field that must be named. The table is rewritten to match the forged records.
STATIC: dict[str, tuple[str, Edit, str]] = {
    "radius up by one ulp": ("standard", record("radius", up), "radius"),
    "radius down": ("standard", record("radius", lambda r: r * 0.9), "radius"),
    "radius of an audited record": ("srs", record("radius", up), "radius"),
    "radius of a published record": ("srs-paper", record("radius", up), "radius"),
    "bound up by one ulp": ("standard", record("p_lower", up), "p_lower"),
    "audited bound up": ("srs", record("p_lower", up), "p_lower"),
    "published bound up": ("srs-paper", record("p_lower", up), "p_lower"),
    "count one up": ("standard", record("count", lambda k: k + 1), "count"),
    "count one up, all refitted": (
        "standard",
        record("count", lambda k: k + 1, refit=True),
        "count",
    ),
    "more labels than draws": ("standard", more_labels_than_draws, "counts"),
    "another class selected": ("standard", another_selection, "prediction"),
    "prediction changed": ("standard", record("prediction", lambda c: (c + 1) % 10), "prediction"),
    "certificate withheld": ("standard", certified_abstention, "prediction"),
    "label changed": ("standard", record("label", lambda c: (c + 1) % 10), "correct"),
    "label changed, correct to match": ("standard", relabelled, "label"),
    "correct flipped": ("standard", record("correct", lambda c: not c), "correct"),
    "status changed": ("standard", record("status", lambda s: "abstained"), "status"),
    "share of the count doubled": (
        "standard",
        record("alpha_count", lambda a: 2 * a),
        "alpha_count",
    ),
    "share of the audit": ("standard", record("alpha_audit", lambda a: 0.001), "alpha_audit"),
    "published shares": ("srs-paper", record("alpha_count", lambda a: 0.001), "alpha_count"),
    "shares under a joint rule": ("srs", record("alpha_count", lambda a: 0.001), "alpha_count"),
    "shares picked afterwards": ("srs", shared_by_hand, "alpha_count"),
    "Theorem A of a part": ("srs", shared_by_hand, "plan.audit"),
    "no architecture": (
        "standard",
        configuration("architecture", "mdeq"),
        "configuration.architecture",
    ),
    "alpha of one record": ("standard", record("alpha", lambda a: 0.01, refit=True), "alpha"),
    "sigma of one record": ("standard", record("sigma", lambda s: 0.5, refit=True), "sigma"),
    "n of one record": ("standard", record("n", lambda n: n - 1, refit=True), "n"),
    "n everywhere": ("standard", everywhere("n", "n", 200), "counts"),
    "n0 of one record": ("standard", record("n0", lambda n: 39), "n0"),
    "seed of one record": ("standard", record("seed", lambda s: s + 1), "seed"),
    "method of one record": ("srs", record("method", lambda m: "standard"), "method"),
    "solver of one record": (
        "standard",
        record("reference.solver", lambda s: "picard:9"),
        "reference.solver",
    ),
    "precision of one record": (
        "standard",
        record("reference.precision", lambda s: "float64"),
        "reference.precision",
    ),
    "margin of one record": (
        "standard",
        record("reference.margin", lambda m: m / 2),
        "reference.margin",
    ),
    "weights of one record": (
        "standard",
        record("reference.weights_digest", lambda d: OTHER),
        "reference.weights_digest",
    ),
    "weights everywhere": (
        "standard",
        everywhere("reference.weights_digest", "weights_digest", OTHER),
        "configuration.weights_digest",
    ),
    "noise stream": ("standard", record("noise", lambda s: NOISE_STREAM + "x"), "noise"),
    "another known stream": ("standard", record("noise", lambda s: DEVICE_STREAM), "noise"),
    "chains of one record": ("srs", record("chains", lambda c: 400), "chains"),
    "serial solver of one record": ("srs", record("serial", lambda s: "anderson:3"), "serial"),
    "serial solver of independent labels": (
        "standard",
        record("serial", lambda s: "picard:1"),
        "serial",
    ),
    "guarantee none to audited": (
        "srs-paper",
        record("guarantee", lambda g: "audited"),
        "guarantee",
    ),
    "guarantee none to standard": (
        "srs-paper",
        record("guarantee", lambda g: "standard"),
        "guarantee",
    ),
    "guarantee unknown": ("srs-paper", record("guarantee", lambda g: "sure"), "guarantee"),
    "guarantee audited to proved": ("srs", record("guarantee", lambda g: "proved"), "guarantee"),
    "disagreements lowered": ("srs", record("audit.disagreements", lambda m: m - 1), "count"),
    "more audited than planned": (
        "srs",
        record("audit.drawn", lambda k: k + 1, refit=True),
        "audit.drawn",
    ),
    "more audited than published": (
        "srs-paper",
        record("audit.drawn", lambda k: k + 40, refit=True),
        "audit.drawn",
    ),
    "population lowered": (
        "srs",
        record("audit.population", lambda k: k - 1, refit=True),
        "audit.population",
    ),
    "bound on disagreements": (
        "srs",
        record("audit.upper_bound", lambda m: 0),
        "audit.upper_bound",
    ),
    "audit left out": ("srs", record("audit", lambda a: None), "audit"),
    "audit of independent labels": (
        "standard",
        record(
            "audit", lambda a: {"population": 9, "drawn": 9, "disagreements": 0, "upper_bound": 0}
        ),
        "audit",
    ),
    "another weight of the region": (
        "srs",
        record("plan.weight", lambda w: 0.61, refit=True),
        "plan.weight",
    ),
    "another strip of the region": (
        "srs",
        record("plan.strip", lambda s: 0.3, refit=True),
        "plan.strip",
    ),
    "another rule": ("srs", record("plan.rule", lambda r: "theorem-b"), "plan.rule"),
    "a planned audit of another size": ("srs", record("plan.audit", lambda k: 100), "plan.audit"),
    "serialized labels passed off as independent": ("srs", no_audit, "plan.method"),
    "steps beyond the solver": ("standard", record("steps.1", lambda s: 99.0), "steps"),
    "more failures than solves": ("standard", record("unconverged", lambda u: 9999), "unconverged"),
    "index off the grid": ("standard", record("index", lambda i: i + 1), "index"),
    "indices of two records swapped": ("standard", swapped_indices, "label"),
    "a second record of an image": ("standard", doubled, "index"),
    "a record left out": ("standard", dropped, "index"),
    "a count that is no whole number": ("standard", record("count", float), "count"),
    "a negative count": ("standard", record("counts", lambda k: [-1, *k[1:]]), "counts"),
    "a bound above one": ("standard", record("p_lower", lambda p: 1.5), "p_lower"),
    "an unknown field": ("standard", added_field, "true_radius"),
    "a missing field": ("standard", lost_field, "audit"),
    "data digest": ("standard", configuration("data_digest", OTHER), "configuration.data_digest"),
    "split": ("standard", configuration("split", "train"), "configuration.data_digest"),
    "class names": (
        "standard",
        configuration("class_names", ["0", "1"]),
        "configuration.class_names",
    ),
    "skip": ("standard", configuration("skip", 20), "index"),
    "a setting no run can have": ("standard", configuration("alpha", 0.0), "configuration"),
    "a missing setting": ("standard", lost_setting, "configuration.chains"),
    "noise stream of the run": ("standard", configuration("noise", "other"), "configuration.noise"),
}


REPLAYED: dict[str, tuple[str, Edit, str]] = {
    "five labels moved to the class": ("standard", moved, "counts"),
    "serialized labels moved": ("srs", moved, "counts"),
    "published labels moved": ("srs-paper", moved, "counts"),
    "a disagreement less, all refitted": ("srs", fewer_disagreements, "audit.disagreements"),
    "a published disagreement less": (
        "srs-paper",
        record("audit.disagreements", lambda m: m - 1, refit=True),
        "audit.disagreements",
    ),
    "a larger audit than was made": ("srs", larger_audit, "audit.disagreements"),
    "sigma everywhere": ("standard", everywhere("sigma", "sigma", 0.5, refit=True), "counts"),
    "stream everywhere": ("standard", everywhere("noise", "noise", DEVICE_STREAM), "counts"),
    "seed everywhere": ("standard", everywhere("seed", "seed", 12), "counts"),
    "solver everywhere": (
        "standard",
        everywhere("reference.solver", "reference", "anderson:6"),
        "counts",
    ),
    "the certificate of another image": ("standard", exchanged, "counts"),
    "the published rule passed off as audited": ("srs-paper", upgraded, "audit.drawn"),
    "another weight of the region": (
        "srs",
        record("plan.weight", lambda w: 0.9 if w != 0.9 else 0.75, refit=True),
        "plan.weight",
    ),
    "cost halved": ("standard", record("cell_evaluations", lambda c: c // 2), "cell_evaluations"),
    "residuals": ("standard", record("residual.1", lambda r: None), "residual.1"),
    "another reason": ("srs", record("plan.reason", lambda r: "because"), "plan.reason"),
    "selection counts": ("standard", selected_once_less, "counts0"),
}
