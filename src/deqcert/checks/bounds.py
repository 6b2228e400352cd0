"""The bound and the radius of one record, computed again from its counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deqcert.checks.counts import planned
from deqcert.checks.problems import Place, Problem
from deqcert.errors import ConfigurationError
from deqcert.stats import (
    JointRegion,
    certified_radius,
    clopper_pearson_lower,
    theorem_3_1_lower,
    theorem_a_joint_lower,
    theorem_a_lower,
)

# Beta quantiles of another SciPy, or on another machine, may differ in their last digits. A bound
# recorded elsewhere may be off by this share; one recorded under this SciPy must agree to the bit.
ELSEWHERE = 1e-12


@dataclass(frozen=True)
class Bound:
    """A lower bound of the class probability, and where it comes from.

    Attributes:
        p_lower: The bound.
        upper_bound: Bound on the disagreements, where the rule has one.
        rule: Name of the rule.
    """

    p_lower: float
    upper_bound: int | None
    rule: str


def bound_of(record: Mapping[str, Any]) -> Bound:
    """Return the bound that the recorded counts give by the rule of the record's method.

    Raises:
        ConfigurationError: No rule gives a bound for such counts.
    """
    method, n = planned(record), record["n"]
    if method == "abstain":
        return Bound(0.0, None, "an image given up")
    if method in ("standard", "proved"):
        bound = clopper_pearson_lower(record["count"], n, float(record["alpha"]))
        return Bound(float(bound), None, "Clopper-Pearson (THEORY 2)")
    audit = record["audit"]
    if audit is None:
        raise ConfigurationError(f"a bound by {method} needs an audit")
    if method == "srs-paper":
        bound = theorem_3_1_lower(
            agreed=audit["drawn"] - audit["disagreements"],
            audited=audit["drawn"],
            count=audit["population"],
            n=n,
            alpha=record["alpha"],
        )
        return Bound(float(bound), None, "Theorem 3.1 as published")
    facts = {"n": n, "drawn": audit["drawn"], "disagreements": audit["disagreements"]}
    plan = record["plan"]
    if plan.get("rule") == "theorem-a-joint":
        region = JointRegion(record["alpha"], plan.get("weight"), plan.get("strip"))
        bound = theorem_a_joint_lower(count=audit["population"], **facts, region=region)
        return Bound(bound, None, "Theorem A'")
    bound, upper = theorem_a_lower(
        count=audit["population"],
        **facts,
        alpha_count=record["alpha_count"],
        alpha_audit=record["alpha_audit"],
    )
    return Bound(float(bound), upper, "Theorem A")


def check_bound(place: Place, record: Mapping[str, Any], *, exact: bool) -> Iterator[Problem]:
    """Yield a bound or radius that is not what counts and rule give.

    Args:
        place: Where the record is.
        record: A record of the right schema.
        exact: Whether to demand equality to the bit (same SciPy, same kind of machine).
    """
    try:
        bound = bound_of(record)
    except (ConfigurationError, TypeError) as error:
        why = "the counts of this record support no bound at all"
        yield place.problem("p_lower", record["p_lower"], str(error), why)
        return
    yield from _compare(place, "p_lower", record["p_lower"], bound.p_lower, bound.rule, exact)
    if record["audit"] is not None:
        why = f"the disagreements that the audit leaves possible, by {bound.rule}"
        recorded = record["audit"]["upper_bound"]
        yield from place.expect("audit.upper_bound", recorded, bound.upper_bound, why)
    # From the recorded bound, so that one wrong number is not reported twice.
    radius = certified_radius(record["p_lower"], record["sigma"])
    rule = "sigma Phi^-1(p_lower), rounded down"
    yield from _compare(place, "radius", record["radius"], radius, rule, exact)


def _compare(
    place: Place, field: str, recorded: float, value: float, rule: str, exact: bool
) -> Iterator[Problem]:
    if recorded == value or (not exact and abs(recorded - value) <= ELSEWHERE * abs(value)):
        return
    if recorded > value:
        why = f"it claims more than {rule} gives: rounded up, or not from these counts"
    else:
        why = f"it is not what {rule} gives, though it claims less"
    yield place.problem(field, recorded, value, why)
