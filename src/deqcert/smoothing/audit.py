"""The random audit of serialized labels, and the bound it gives (THEORY 3, Theorems A and A')."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deqcert.certificate import Audit
from deqcert.smoothing.sampling import Draws
from deqcert.smoothing.spent import Spent
from deqcert.stats import AuditPlan, theorem_a_joint_lower, theorem_a_lower


@dataclass(frozen=True)
class AuditedCount:
    """What serialized labels prove about the reference classifier once audited.

    Attributes:
        count: Draws credited to the class: audited disagreements taken off.
        p_lower: Lower bound of P(f(x + e) = class), at the plan's total alpha.
        audit: The record of the audit.
    """

    count: int
    p_lower: float
    audit: Audit


def audited_count(
    sampler: Draws,
    labels: np.ndarray,  # (n,) serialized labels
    predicted: int,
    plan: AuditPlan,
    spent: Spent,
) -> AuditedCount:
    """Audit the draws labelled `predicted` and bound the class probability.

    The audited draws are chosen after the serialized run, uniformly without replacement, by
    randomness of a stage of its own; their noise is made again from its keys, and they are solved
    cold by the reference. Failed solves and near ties count as disagreements.

    Guarantee:
        ``P(p_lower <= P(f(x + e) = predicted)) >= 1 - alpha``, whatever the serialized labels are,
        if `predicted` and `plan` were fixed without looking at the estimation draws. THEORY 3,
        Theorem A' (or Theorem A where the plan carries shares of alpha).
    """
    population = np.flatnonzero(labels == predicted)
    size = len(population)
    drawn = size if plan.drawn == "all" else min(int(plan.drawn), size)
    chosen = sampler.noise.choose("audit", population, drawn)
    classifier = sampler.classifier
    reference = sampler.cold("estimation", chosen, spent, shown_as="audit")
    disagreements = int((reference.clear(classifier.margin) != predicted).sum())
    p_lower, upper = _bound(plan, size, len(labels), drawn, disagreements)
    return AuditedCount(
        count=size - disagreements,
        p_lower=p_lower,
        audit=Audit(population=size, drawn=drawn, disagreements=disagreements, upper_bound=upper),
    )


def _bound(
    plan: AuditPlan, count: int, n: int, drawn: int, disagreements: int
) -> tuple[float, int | None]:
    """Return the lower bound of the plan's rule, and the bound on disagreements if it has one."""
    facts = {"count": count, "n": n, "drawn": drawn, "disagreements": disagreements}
    if plan.region is not None:
        return theorem_a_joint_lower(**facts, region=plan.region), None
    assert plan.alpha_count is not None, "a plan has a region or shares of alpha"
    assert plan.alpha_audit is not None, "a plan has a region or shares of alpha"
    return theorem_a_lower(**facts, alpha_count=plan.alpha_count, alpha_audit=plan.alpha_audit)
