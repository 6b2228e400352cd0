"""What audits cost in radius, image by image: yardsticks for a reader, never claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deqcert.stats import (
    JointRegion,
    certified_radius,
    clopper_pearson_lower,
    theorem_a_joint_lower,
    theorem_a_lower,
)

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class AuditCost:
    """What one image's audit found, and what it took off the radius.

    Attributes:
        index: The image.
        drawn: Audited draws.
        disagreements: Those whose reference label differs.
        found: Radius lost to the disagreements that were found: against the same audit with none.
        unseen: Radius lost to what an audit of this size cannot exclude: against knowing that every
            serialized label is right.
    """

    index: int
    drawn: int
    disagreements: int
    found: float
    unseen: float

    @property
    def rate(self) -> float:
        """Share of the audited draws that disagree, in [0, 1]."""
        return self.disagreements / self.drawn if self.drawn else 0.0


def audit_costs(records: Sequence[Record], *, most: int | None = None) -> list[AuditCost]:
    """Return the costs of audited records with a guarantee, in their order.

    Args:
        records: The records of a run.
        most: Look at so many at most, evenly spaced among the audited ones; None looks at all. A
            bound takes about a millisecond.
    """
    audited = audited_records(records)
    if most is not None and len(audited) > most:
        audited = [audited[k * len(audited) // most] for k in range(most)]
    return [_cost(row, face) for row, face in zip(audited, _face_values(audited), strict=True)]


def audited_records(records: Sequence[Record]) -> list[Record]:
    """Return the records that rest on an audit, with a guarantee."""
    return [row for row in records if row["guarantee"] == "audited" and row["audit"] is not None]


def _face_values(records: Sequence[Record]) -> list[float]:
    """Return the radii if every serialized label were known to be the reference's."""
    radii: list[float] = []
    for row in records:
        bound = clopper_pearson_lower(row["audit"]["population"], row["n"], row["alpha"])
        radii.append(certified_radius(float(bound), row["sigma"]))
    return radii


def _cost(record: Record, face: float) -> AuditCost:
    audit = record["audit"]
    clean = record["radius"] if audit["disagreements"] == 0 else _without_disagreements(record)
    clean = max(clean, record["radius"])
    return AuditCost(
        index=record["index"],
        drawn=audit["drawn"],
        disagreements=audit["disagreements"],
        found=clean - record["radius"],
        unseen=max(0.0, face - clean),
    )


def _without_disagreements(record: Record) -> float:
    """Return the radius had the same audit found no disagreement; 0 under an unknown rule."""
    audit, plan = record["audit"], record["plan"]
    facts = {
        "count": audit["population"],
        "n": record["n"],
        "drawn": audit["drawn"],
        "disagreements": 0,
    }
    if plan.get("rule") == "theorem-a-joint":
        region = JointRegion(record["alpha"], plan["weight"], plan["strip"])
        bound = theorem_a_joint_lower(**facts, region=region)
    elif plan.get("rule") == "theorem-a":
        bound, _ = theorem_a_lower(
            **facts, alpha_count=record["alpha_count"], alpha_audit=record["alpha_audit"]
        )
    else:
        return 0.0
    return certified_radius(float(np.float64(bound)), record["sigma"])
