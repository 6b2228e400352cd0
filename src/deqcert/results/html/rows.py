"""The table of images as columns of plain numbers: what the page's script sorts and filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deqcert.certificate import DETERMINISTIC
from deqcert.results.cohen import PUBLISHED
from deqcert.results.html.outcomes import SHADES, outcome
from deqcert.results.html.runs import ReportedRun
from deqcert.results.html.style import floored
from deqcert.results.html.words import plan_name
from deqcert.results.summary import Record
from deqcert.stats import clopper_pearson_upper

MICRO = 6
"""Decimals of radii and probabilities in the table; lower bounds and radii are rounded down."""
NOTHING = -1
"""Stands for what a record does not have."""
UNBOUNDED = (DETERMINISTIC, PUBLISHED, "none")
"""Guarantees that bound no class probability."""
TOP_CLASSES = 6
"""Classes whose draws the view of one image shows."""


class Words:
    """Numbers words by first appearance, so that rows hold numbers alone."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, word: str) -> int:
        """Return the number of `word`."""
        return self._numbers.setdefault(word, len(self._numbers))

    def all(self) -> list[str]:
        """Return the words in the order of their numbers."""
        return list(self._numbers)


def image_rows(runs: Sequence[ReportedRun]) -> dict[str, Any]:
    """Return the table of all images of runs of one norm, column by column.

    Radii and bounds are whole millionths: ``radius``, ``together`` (all claims at once), ``low``
    and ``high`` (bounds of the class probability). `NOTHING` stands for what a record lacks.
    """
    rows = [(run, row) for run in runs for row in run.records]
    claims = [claim for run in runs for claim in run.together]
    plans, texts = Words(), Words()
    kinds = list(SHADES)

    def column(value: Callable[[ReportedRun, Record], Any]) -> list[Any]:
        return [value(run, row) for run, row in rows]

    return {
        "run": column(lambda run, row: run.number),
        "index": column(lambda run, row: row["index"]),
        "label": column(lambda run, row: row["label"]),
        "prediction": column(lambda run, row: _or_nothing(row["prediction"])),
        "outcome": column(lambda run, row: kinds.index(outcome(row))),
        "radius": micro([row["radius"] for _, row in rows]),
        "together": [
            millionths if run.claims else NOTHING
            for (run, _), millionths in zip(rows, micro([c.radius for c in claims]), strict=True)
        ],
        "low": _lower(rows),
        "high": _upper(rows),
        "plan": column(lambda run, row: plans.number(plan_name(row))),
        "reason": column(lambda run, row: texts.number(_reason(row))),
        "audit": column(lambda run, row: _audit(row)),
        "counts": column(lambda run, row: _counts(row)),
        "n": column(lambda run, row: row.get("n") or 0),
        "chosen": column(lambda run, row: _chosen(row)),
        "cost": column(lambda run, row: _or_nothing(row.get("cell_evaluations"))),
        "seconds": column(lambda run, row: _seconds(row.get("seconds"))),
        "steps": column(lambda run, row: _quantiles(row, "steps")),
        "residual": column(lambda run, row: _quantiles(row, "residual")),
        "plans": plans.all(),
        "reasons": texts.all(),
        "outcomes": kinds,
    }


def micro(values: Sequence[float]) -> list[int]:
    """Return `values` in whole millionths, rounded down."""
    return np.rint(floored(np.asarray(values, dtype=np.float64), MICRO) * 1e6).astype(int).tolist()


def thumbnails(runs: Sequence[ReportedRun]) -> dict[str, dict[int, str]]:
    """Return the pictures by data set and image index, each once however many runs show it."""
    found: dict[str, dict[int, str]] = {}
    for run in runs:
        shown = {row["index"] for row in run.records}
        pictures = found.setdefault(data_key(run), {})
        pictures.update({i: text for i, text in run.thumbnails.items() if i in shown})
    return {key: pictures for key, pictures in found.items() if pictures}


def data_key(run: ReportedRun) -> str:
    """Return what runs about the same images share."""
    return str(run.configuration.get("data_digest", f"run {run.number}"))


def _seconds(value: float | None) -> float:
    return NOTHING if value is None else float(f"{value:.4g}")


def _or_nothing(value: int | None) -> int:
    return NOTHING if value is None else value


def _lower(rows: Sequence[tuple[ReportedRun, Record]]) -> list[int]:
    """Return the recorded lower bounds; nothing where there is no noise or no guarantee."""
    bounds = micro([row.get("p_lower") or 0.0 for _, row in rows])
    return [
        NOTHING if row["guarantee"] in UNBOUNDED or not sum(row["counts"]) else bound
        for (_, row), bound in zip(rows, bounds, strict=True)
    ]


def _upper(rows: Sequence[tuple[ReportedRun, Record]]) -> list[int]:
    """Return upper bounds at the records' alpha, in millionths, rounded up.

    Draws that count for no class might belong to any. Where serialized draws of other classes were
    never checked nothing bounds the probability from above.
    """
    found = [NOTHING] * len(rows)
    groups: dict[tuple[int, float], list[int]] = {}
    for position, (_, row) in enumerate(rows):
        if row["guarantee"] in ("standard", "proved") and sum(row["counts"]):
            groups.setdefault((row["n"], row["alpha"]), []).append(position)
    for (n, alpha), positions in groups.items():
        most = np.array([_most(rows[k][1]) for k in positions])
        bounds = np.atleast_1d(clopper_pearson_upper(most, n, alpha))
        for position, bound in zip(positions, _micro_up(bounds), strict=True):
            found[position] = bound
    return found


def _most(record: Record) -> int:
    return min(record["n"], record["count"] + record["n"] - sum(record["counts"]))


def _micro_up(values: NDArray[np.float64]) -> list[int]:
    return np.ceil(values * 1e6).clip(max=1e6).astype(int).tolist()


def _reason(record: Record) -> str:
    return str((record.get("plan") or {}).get("reason", ""))


def _audit(record: Record) -> list[int]:
    """Return (drawn, disagreements, population); empty without an audit."""
    audit = record.get("audit")
    return [] if audit is None else [audit["drawn"], audit["disagreements"], audit["population"]]


def _counts(record: Record) -> list[int]:
    """Return (class, draws) of the most frequent classes, flat."""
    counts = record.get("counts") or ()
    order = sorted((k for k, count in enumerate(counts) if count), key=lambda k: -counts[k])
    return [number for k in order[:TOP_CLASSES] for number in (k, counts[k])]


def _chosen(record: Record) -> list[int]:
    """Return (class the selection draws chose, its draws, all of them); empty without draws."""
    counts: Sequence[int] = record.get("counts0") or ()
    if not counts or not max(counts):
        return []
    best = max(counts)
    return [list(counts).index(best), best, record["n0"]]


def _quantiles(record: Mapping[str, Any], field: str) -> list[float]:
    """Return (quantile, value) pairs, flat."""
    pairs = ((record.get(field) or {}).items()) if isinstance(record.get(field), Mapping) else ()
    return [
        number
        for name, value in pairs
        if value is not None
        for number in (float(name), float(f"{value:.3g}"))
    ]
