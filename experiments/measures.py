"""What else is made of a row's records: claims of the released code, radii in pairs, gaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deqcert.stats import certified_radius, clopper_pearson_lower, released_code_lower

Record = dict[str, Any]
SMALL_GAP = 0.2
"""Gao et al. (2024) report that 95 % of their images have a gap below this."""


def released_code_claims(records: Sequence[Record]) -> list[Record]:
    """Return what the released code would claim for the draws of `srs-paper` records.

    No guarantee: the rule is there to be looked at (`deqcert.stats.released_code_lower`).
    """
    return [_claimed(record) for record in records]


def _claimed(record: Record) -> Record:
    audit, lower = record["audit"], 0.0
    if audit is not None and audit["drawn"] > 0:
        lower = released_code_lower(
            agreed=audit["drawn"] - audit["disagreements"],
            audited=audit["drawn"],
            count=record["count"],
            n=record["n"],
            alpha=record["alpha"],
        )
    radius = certified_radius(lower, record["sigma"])
    # A record of an abstention names no class; the most frequent selection draw does.
    predicted = int(np.argmax(record["counts0"])) if radius > 0 else None
    return {
        **record,
        "prediction": predicted,
        "radius": radius,
        "p_lower": lower,
        "correct": predicted is not None and predicted == record["label"],
        "guarantee": "none",
    }


@dataclass(frozen=True, kw_only=True)
class RadiusDifferences:
    """Relative radius differences |r_standard - r_serialized| / r_standard of one pair of rows.

    Attributes:
        images: Images certified by both rows' runs.
        positive: Those of them with a positive standard radius; all else is about these.
        mean: Mean relative difference.
        median: Median relative difference.
        larger: Images whose serialized radius is larger than the standard one.
        values: The differences, in the order of the images.
    """

    images: int
    positive: int
    mean: float | None
    median: float | None
    larger: int
    values: tuple[float, ...]


def radius_differences(
    standard: Sequence[Record], serialized: Sequence[Record]
) -> RadiusDifferences:
    """Return the relative radius differences (Gao et al. 2024) over the images of both runs."""
    other = {record["index"]: record["radius"] for record in serialized}
    both = {r["index"]: r["radius"] for r in standard if r["index"] in other}
    pairs = [(radius, other[index]) for index, radius in sorted(both.items()) if radius > 0]
    values = tuple(abs(one - two) / one for one, two in pairs)
    return RadiusDifferences(
        images=len(both),
        positive=len(values),
        mean=math.fsum(values) / len(values) if values else None,
        median=float(np.median(values)) if values else None,
        larger=sum(two > one for one, two in pairs),
        values=values,
    )


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """Gaps p_m = 1 - LowerConfBound(N_1, N_2, 1 - alpha / 2) of Gao et al. (2024), Theorem 3.1.

    Attributes:
        images: Images with audited draws.
        below: Share of them with a gap below `SMALL_GAP`; None without any.
        disagreements: Audited draws that differ, per audited draw; None without any.
        values: The gaps, in the order of the records.
    """

    images: int
    below: float | None
    disagreements: float | None
    values: tuple[float, ...]


def gaps(records: Sequence[Record]) -> Gaps:
    """Return the gaps of all records with an audit."""
    audits = [
        (record["audit"]["drawn"], record["audit"]["disagreements"], record["alpha"])
        for record in records
        if record.get("audit") is not None and record["audit"]["drawn"] > 0
    ]
    values = tuple(
        1.0 - float(clopper_pearson_lower(drawn - wrong, drawn, alpha / 2))
        for drawn, wrong, alpha in audits
    )
    drawn = sum(audit[0] for audit in audits)
    return Gaps(
        images=len(values),
        below=sum(value < SMALL_GAP for value in values) / len(values) if values else None,
        disagreements=sum(audit[1] for audit in audits) / drawn if drawn else None,
        values=values,
    )


def histogram(values: Sequence[float], *, width: float = 0.1) -> list[tuple[float, int]]:
    """Return (left edge, count) of bins of `width` from 0 to 1; larger values go to the last."""
    bins = round(1 / width)
    counts = [0] * bins
    for value in values:
        counts[min(int(value / width), bins - 1)] += 1
    return [(round(k * width, 10), count) for k, count in enumerate(counts)]
