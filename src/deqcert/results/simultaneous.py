"""What a run certifies if all its claims shall hold together, not each for itself.

A certificate fails with probability at most alpha. Over many images some may be false (THEORY 2);
whoever needs all of them to be true at once splits alpha over the images (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deqcert.certificate import DETERMINISTIC
from deqcert.errors import ConfigurationError
from deqcert.stats import (
    JointRegion,
    certified_radius,
    clopper_pearson_lower,
    theorem_a_joint_lower,
    theorem_a_lower,
)

Record = Mapping[str, Any]

# A share of alpha is lowered by more than the rounding of the division that makes it.
ROUNDING = 2.0**-50


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is certified of one image.

    Attributes:
        prediction: The class, or None for an abstention.
        radius: Certified radius in pixel units, >= 0, rounded down; 0.0 for an abstention.
        p_lower: Lower bound of the class probability under noise; None where there is no noise,
            and for abstentions.
    """

    prediction: int | None
    radius: float
    p_lower: float | None


ABSTAINED = Claim(prediction=None, radius=0.0, p_lower=None)


def simultaneous_claims(records: Sequence[Record], *, images: int | None = None) -> list[Claim]:
    """Return what the records certify at ``alpha / images`` each, in their order.

    Bound and radius are computed again from the recorded counts, by the rule of each record:
    Clopper-Pearson for independent and proved labels; Theorem A with both shares divided;
    Theorem A' on the region of the same weight and strips whose area is ``alpha / images``.
    Deterministic certificates cannot fail and stay as they are. A record without a guarantee, or of
    a rule that is not known here, claims nothing. No claim exceeds the recorded one.

    Guarantee:
        With probability at least ``1 - alpha``, *all* claims returned are true: each fails with
        probability at most ``alpha / images``, and Boole's inequality adds up at most `images` of
        them (Bonferroni 1936). It holds for any dependence between the records. Assumed: what each
        certificate assumes (its weight and shares were fixed before its estimation draws, and
        dividing alpha by a number fixed beforehand keeps them so), and that the number of images
        was not chosen by looking at results.

    Args:
        records: Certified images of one run.
        images: Images over which alpha is split, at least as many as there are records; default
            their number. Give the planned number for a run that is not finished.

    Raises:
        ConfigurationError: Fewer images than records.
    """
    images = len(records) if images is None else images
    if images < len(records):
        raise ConfigurationError(f"alpha must be split over all {len(records)} records")
    claims = [ABSTAINED] * len(records)
    counted: list[int] = []
    for position, record in enumerate(records):
        if record["prediction"] is None:
            continue
        if record["guarantee"] == DETERMINISTIC:
            claims[position] = Claim(
                prediction=record["prediction"], radius=float(record["radius"]), p_lower=None
            )
        elif record["guarantee"] in ("standard", "proved"):
            counted.append(position)
        elif record["guarantee"] == "audited" and record["audit"] is not None:
            claims[position] = _claim(record, _audited_bound(record, images))
    for position, bound in zip(counted, _counted_bounds(records, counted, images), strict=True):
        claims[position] = _claim(records[position], bound)
    return claims


def share_of(alpha: float, images: int) -> float:
    """Return ``alpha / images``, rounded down."""
    return alpha / images * (1.0 - ROUNDING)


def _counted_bounds(
    records: Sequence[Record], positions: Sequence[int], images: int
) -> list[float]:
    """Return Clopper-Pearson bounds of these records, computed for all records of one n at once."""
    found: dict[int, float] = {}
    for n in {records[position]["n"] for position in positions}:
        chosen = [position for position in positions if records[position]["n"] == n]
        counts = np.array([records[position]["count"] for position in chosen])
        shares = np.array([share_of(records[position]["alpha"], images) for position in chosen])
        bounds = np.atleast_1d(clopper_pearson_lower(counts, n, shares))
        found |= dict(zip(chosen, map(float, bounds), strict=True))
    return [found[position] for position in positions]


def _audited_bound(record: Record, images: int) -> float:
    """Return the bound of Theorem A or A' at a share of alpha; 0 for another rule."""
    audit, plan = record["audit"], record["plan"]
    facts = {
        "count": audit["population"],
        "n": record["n"],
        "drawn": audit["drawn"],
        "disagreements": audit["disagreements"],
    }
    if plan.get("rule") == "theorem-a-joint":
        share = share_of(record["alpha"], images)
        region = JointRegion(share, plan["weight"], plan["strip"])
        return theorem_a_joint_lower(**facts, region=region)
    if plan.get("rule") == "theorem-a":
        bound, _ = theorem_a_lower(
            **facts,
            alpha_count=share_of(record["alpha_count"], images),
            alpha_audit=share_of(record["alpha_audit"], images),
        )
        return float(bound)
    return 0.0


def _claim(record: Record, bound: float) -> Claim:
    """Return the claim of `bound`, never above what is recorded."""
    p_lower = min(bound, record["p_lower"])
    radius = min(certified_radius(p_lower, record["sigma"]), record["radius"])
    if radius <= 0.0:
        return ABSTAINED
    return Claim(prediction=record["prediction"], radius=radius, p_lower=p_lower)
