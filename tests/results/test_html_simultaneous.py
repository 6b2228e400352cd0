"""All claims of a run at once: the same counts at a share of alpha, and never more than that."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from deqcert.certificate import Audit, Certificate
from deqcert.errors import ConfigurationError
from deqcert.results.records import make_record
from deqcert.results.simultaneous import share_of, simultaneous_claims
from deqcert.results.summary import false_at_most
from deqcert.stats import (
    JointRegion,
    certified_radius,
    clopper_pearson_lower,
    theorem_a_joint_lower,
    theorem_a_lower,
)
from tests.results.made import TEMPLATE, certain

N, ALPHA, SIGMA = 1000, 0.001, 0.5


def record(count: int, *, index: int = 0, **changes: Any) -> dict[str, Any]:
    """An honest record of independent labels, as the certifier makes it."""
    p_lower = float(clopper_pearson_lower(count, N, ALPHA))
    radius = certified_radius(p_lower, SIGMA)
    made = replace(
        TEMPLATE,
        index=index,
        count=count,
        counts=(count, N - count, 0),
        p_lower=p_lower,
        prediction=0 if radius > 0 else None,
        radius=radius,
        **changes,
    )
    return make_record(made, label=0)


def audited_record(
    rule: dict[str, Any], shares: tuple[float | None, float | None]
) -> dict[str, Any]:
    audit = Audit(population=950, drawn=300, disagreements=2, upper_bound=None)
    facts = {"count": 950, "n": N, "drawn": 300, "disagreements": 2}
    if rule["rule"] == "theorem-a-joint":
        region = JointRegion(ALPHA, rule["weight"], rule["strip"])
        p_lower = theorem_a_joint_lower(**facts, region=region)
    else:
        assert shares[0] is not None
        assert shares[1] is not None
        p_lower, _ = theorem_a_lower(**facts, alpha_count=shares[0], alpha_audit=shares[1])
    made: Certificate = replace(
        TEMPLATE,
        method="srs",
        guarantee="audited",
        audit=audit,
        count=948,
        counts=(950, 50, 0),
        alpha_count=shares[0],
        alpha_audit=shares[1],
        p_lower=float(p_lower),
        radius=certified_radius(float(p_lower), SIGMA),
        plan={"method": "srs", **rule},
    )
    return make_record(made, label=0)


@pytest.mark.parametrize("images", [1, 7, 500, 100_000])
@pytest.mark.parametrize("guarantee", ["standard", "proved"])
def test_counted_labels_at_a_share_of_alpha(images: int, guarantee: str) -> None:
    counts = (1000, 990, 700, 560, 500, 0)
    rows = [record(count, index=k, guarantee=guarantee) for k, count in enumerate(counts)]
    found = simultaneous_claims(rows, images=max(images, len(rows)))
    share = ALPHA / max(images, len(rows))
    for row, count, claim in zip(rows, counts, found, strict=True):
        bound = clopper_pearson_lower(count, N, share)
        radius = certified_radius(float(bound), SIGMA)
        if row["prediction"] is None or radius == 0:
            assert (claim.prediction, claim.radius, claim.p_lower) == (None, 0.0, None)
            continue
        assert claim.prediction == row["prediction"]
        assert claim.p_lower == pytest.approx(bound, rel=1e-12)
        assert claim.p_lower <= bound
        assert claim.radius == pytest.approx(radius, rel=1e-10)
        assert claim.radius <= radius


@pytest.mark.parametrize("weight", [0.3, 0.6, 0.9])
def test_joint_audits_at_the_smaller_region(weight: float) -> None:
    rule = {"rule": "theorem-a-joint", "weight": weight, "strip": 0.02}
    row = audited_record(rule, (None, None))
    (claim,) = simultaneous_claims([row], images=500)
    region = JointRegion(ALPHA / 500, weight, 0.02)
    bound = theorem_a_joint_lower(count=950, n=N, drawn=300, disagreements=2, region=region)
    assert claim.p_lower == pytest.approx(bound, rel=1e-10)
    assert claim.radius == pytest.approx(certified_radius(bound, SIGMA), rel=1e-9)
    assert 0 < claim.radius < row["radius"]


@pytest.mark.parametrize("shares", [(0.0005, 0.0005), (0.0008, 0.0002)])
def test_split_audits_divide_both_shares(shares: tuple[float, float]) -> None:
    row = audited_record({"rule": "theorem-a"}, shares)
    (claim,) = simultaneous_claims([row], images=40)
    bound, _ = theorem_a_lower(
        count=950,
        n=N,
        drawn=300,
        disagreements=2,
        alpha_count=shares[0] / 40,
        alpha_audit=shares[1] / 40,
    )
    assert claim.p_lower == pytest.approx(bound, rel=1e-10)
    assert 0 < claim.radius < row["radius"]


def test_one_image_is_as_it_is() -> None:
    for row in (record(900), audited_record({"rule": "theorem-a"}, (0.0005, 0.0005))):
        (claim,) = simultaneous_claims([row])
        assert claim.radius == pytest.approx(row["radius"], rel=1e-9)
        assert claim.radius <= row["radius"]


def test_all_records_count_abstentions_too() -> None:
    rows = [record(900), *(record(400, index=k) for k in range(1, 100))]
    (claim, *rest) = simultaneous_claims(rows)
    assert claim.p_lower == pytest.approx(clopper_pearson_lower(900, N, ALPHA / 100), rel=1e-12)
    assert all(other.prediction is None for other in rest)


def test_claims_without_chance_stay_as_they_are() -> None:
    rows = [make_record(certain(k, radius=0.1 * k), label=0) for k in range(1, 4)]
    assert [claim.radius for claim in simultaneous_claims(rows)] == [row["radius"] for row in rows]


@pytest.mark.parametrize(
    "changes",
    [
        {"guarantee": "none", "method": "srs-paper"},
        {"guarantee": "audited", "method": "srs", "plan": {"method": "srs", "rule": "another"}},
    ],
)
def test_what_is_not_known_to_be_valid_claims_nothing(changes: dict[str, Any]) -> None:
    audit = Audit(population=900, drawn=400, disagreements=0, upper_bound=None)
    (claim,) = simultaneous_claims([record(900, audit=audit, **changes)])
    assert (claim.prediction, claim.radius) == (None, 0.0)


def test_never_more_than_recorded() -> None:
    row = {**record(1000), "p_lower": 0.7, "radius": 0.1}
    (claim,) = simultaneous_claims([row])
    assert claim.radius <= 0.1
    assert claim.p_lower is not None
    assert claim.p_lower <= 0.7


def test_alpha_is_split_over_all_records() -> None:
    with pytest.raises(ConfigurationError, match="over all 2 records"):
        simultaneous_claims([record(900), record(900, index=1)], images=1)


@pytest.mark.parametrize("images", [3, 7, 10, 499, 100_000])
def test_shares_never_add_up_to_more(images: int) -> None:
    share = share_of(ALPHA, images)
    assert math.fsum([share] * images) <= ALPHA
    assert share == pytest.approx(ALPHA / images, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("p", [0.51, 0.6, 0.8, 0.95, 0.999])
def test_all_claims_hold_at_once_with_probability(alpha: float, p: float) -> None:
    """Exact: over 20 independent images of the worst p, at least one bound misses."""
    images, n = 20, 400
    counts = np.arange(n + 1)
    rows = []
    for count in counts.tolist():
        p_lower = float(clopper_pearson_lower(count, n, alpha))
        radius = certified_radius(p_lower, SIGMA)
        made = replace(
            TEMPLATE,
            n=n,
            alpha=alpha,
            count=count,
            counts=(count, n - count, 0),
            p_lower=p_lower,
            prediction=0 if radius > 0 else None,
            radius=radius,
            index=count,
        )
        rows.append(make_record(made, label=0))
    claims = [simultaneous_claims([row], images=images)[0] for row in rows]
    missed = np.array([claim.p_lower is not None and claim.p_lower > p for claim in claims])
    failure = float(binom.pmf(counts, n, p)[missed].sum())
    assert 1 - (1 - failure) ** images <= alpha
    # Not split, the same records would miss more often: the split is what makes it true.
    single = np.array([row["p_lower"] > p and row["radius"] > 0 for row in rows])
    assert float(binom.pmf(counts, n, p)[single].sum()) >= failure


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.001, 0.05, 0.5])
@pytest.mark.parametrize("images", [1, 50, 500, 10_000, 1_000_000])
@pytest.mark.parametrize("rho", [0.5, 0.05, 0.001, 1e-6])
def test_how_many_may_be_false(images: int, alpha: float, rho: float) -> None:
    found = false_at_most(images, alpha=alpha, rho=rho)
    assert binom.cdf(found, images, alpha) >= (1 - rho) * (1 - 1e-12)
    assert found == 0 or binom.cdf(found - 1, images, alpha) < (1 - rho) * (1 + 1e-12)
