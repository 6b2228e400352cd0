"""Theorems A and A': values of THEORY 3, agreement with each other, edges, limits.

Their coverage is in `tests/guarantee/test_bound_coverage.py`.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import special
from scipy import stats as scipy_stats

from deqcert.errors import ConfigurationError
from deqcert.stats import (
    JointRegion,
    SplitRegion,
    certified_radius,
    clopper_pearson_lower,
    theorem_a_joint_lower,
    theorem_a_lower,
)

N, ALPHA = 10_000, 0.001
SHARES = np.linspace(0.025, 0.975, 39)


def radius_a(alpha_count: float = 0.0005, **facts) -> float:
    p_lower, _ = theorem_a_lower(**facts, alpha_count=alpha_count, alpha_audit=ALPHA - alpha_count)
    return certified_radius(p_lower, 1.0)


def radius_joint(weight: float, **facts) -> float:
    return certified_radius(
        theorem_a_joint_lower(**facts, region=JointRegion(ALPHA, weight=weight)), 1.0
    )


# THEORY 3, second table: p, d, K, A, A', M known. Expected counts, best split and weight.
@pytest.mark.parametrize(
    ("p", "d", "drawn", "by_a", "by_joint", "known"),
    [
        (0.7, 0.002, 400, 0.434, 0.457, 0.480),
        (0.7, 0.01, 1000, 0.434, 0.451, 0.464),
        (0.9, 0.01, 1000, 1.113, 1.149, 1.180),
        (0.99, 0.0, 1000, 2.023, 2.098, 2.212),
        (1.0, 0.0, 400, 2.01, 2.106, 3.199),
    ],
)
def test_table_of_the_theory(p, d, drawn, by_a, by_joint, known):
    count = round(N * p)
    facts = {"count": count, "n": N, "drawn": drawn, "disagreements": round(drawn * d)}
    assert max(radius_a(ALPHA * s, **facts) for s in SHARES) == pytest.approx(by_a, abs=0.0025)
    assert max(radius_joint(w, **facts) for w in SHARES) == pytest.approx(by_joint, abs=0.0025)
    exact = clopper_pearson_lower(count - round(count * d), N, ALPHA)
    assert certified_radius(exact, 1.0) == pytest.approx(known, abs=0.001)


# THEORY 3, "What an audit can buy": all labels agree, best split.
@pytest.mark.parametrize(
    ("drawn", "radius"), [(100, 1.43), (400, 2.01), (1000, 2.32), (2000, 2.54), (5000, 2.80)]
)
def test_largest_radius_of_an_audit(drawn, radius):
    facts = {"count": N, "n": N, "drawn": drawn, "disagreements": 0}
    assert max(radius_a(ALPHA * s, **facts) for s in SHARES) == pytest.approx(radius, abs=0.006)


@pytest.mark.parametrize("drawn", [1, 16, 100, 1000, N])
def test_no_more_than_the_audited_draws_alone_could_claim(drawn):
    """If all N are claimed and none disagrees, no valid rule exceeds alpha^(1/K) (THEORY 3)."""
    facts = {"count": N, "n": N, "drawn": drawn, "disagreements": 0}
    for share in (0.1, 0.5, 0.9):
        region = JointRegion(ALPHA, weight=share)
        assert theorem_a_joint_lower(**facts, region=region) <= ALPHA ** (1 / drawn)
        split = {"alpha_count": ALPHA * share, "alpha_audit": ALPHA * (1 - share)}
        assert theorem_a_lower(**facts, **split)[0] <= ALPHA ** (1 / drawn)


CASES = [
    (count, n, drawn, m)
    for count, n in ((0, 5), (1, 1), (40, 60), (60, 60), (800, 1000), (9000, 10_000))
    for drawn in (0, 1, 7, 30, 400)
    for m in (0, 1, 3, 7, 30)
    if m <= drawn <= count
]


@pytest.mark.parametrize(("count", "n", "drawn", "m"), CASES)
@pytest.mark.parametrize("shares", [(0.025, 0.025), (0.0009, 0.0001), (0.0002, 0.0008)])
def test_theorem_a_is_the_l_shaped_region(count, n, drawn, m, shares):
    facts = {"count": count, "n": n, "drawn": drawn, "disagreements": m}
    plain, _ = theorem_a_lower(**facts, alpha_count=shares[0], alpha_audit=shares[1])
    assert theorem_a_joint_lower(**facts, region=SplitRegion(*shares)) == plain


@pytest.mark.parametrize(("count", "n", "drawn", "m"), CASES)
@pytest.mark.parametrize("weight", [0.1, 0.6, 0.95])
def test_every_number_of_disagreements_is_in_the_region_at_the_bound(count, n, drawn, m, weight):
    """The definition: just below the bound all (u1, u2) are inside, above it one is outside."""
    region = JointRegion(0.01, weight=weight)
    bound = theorem_a_joint_lower(count=count, n=n, drawn=drawn, disagreements=m, region=region)
    bad = np.unique(np.linspace(m, count - drawn + m, 3000).astype(int))
    u2 = np.minimum(1.0, scipy_stats.hypergeom.cdf(m, count, bad, drawn))
    agree = count - bad

    def all_inside(p0: float, slack: float) -> bool:
        u1 = np.where(agree > 0, special.betainc(np.maximum(agree, 1), n - agree + 1.0, p0), 1.0)
        return bool(np.all(u1 <= region.count_level(u2) * (1 + slack)))

    if bound > 0:
        assert all_inside(bound, 1e-6)
    if len(bad) == count - drawn + 1:  # the sweep above left none out
        assert not all_inside(min(1 - 1e-12, bound * (1 + 1e-6) + 1e-12), -1e-9)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_fewer_disagreements_and_more_audits_help(share):
    region = JointRegion(ALPHA, weight=share)
    by_m = [
        theorem_a_joint_lower(count=800, n=1000, drawn=200, disagreements=m, region=region)
        for m in range(0, 201, 5)
    ]
    assert np.all(np.diff(by_m) < 0) or by_m[-1] == 0.0
    by_k = [
        theorem_a_joint_lower(count=800, n=1000, drawn=k, disagreements=0, region=region)
        for k in range(0, 801, 20)
    ]
    assert np.all(np.diff(by_k) >= 0)
    assert by_k[-1] < clopper_pearson_lower(800, 1000, ALPHA)


def test_a_planned_census_is_clopper_pearson():
    facts = {"count": 800, "n": 1000, "drawn": 800, "disagreements": 30}
    p_lower, upper = theorem_a_lower(**facts, alpha_count=ALPHA, alpha_audit=0.0)
    assert (p_lower, upper) == (clopper_pearson_lower(770, 1000, ALPHA), 30)


def test_a_census_by_accident_still_pays_for_its_strip():
    region = JointRegion(ALPHA, weight=0.6)
    bound = theorem_a_joint_lower(count=800, n=1000, drawn=800, disagreements=30, region=region)
    assert bound == pytest.approx(clopper_pearson_lower(770, 1000, 0.02 * ALPHA), rel=1e-9)


@pytest.mark.parametrize(
    ("count", "drawn", "m"), [(0, 0, 0), (50, 0, 0), (50, 20, 20), (50, 50, 50), (1, 1, 1)]
)
def test_nothing_known_to_agree_proves_nothing(count, drawn, m):
    facts = {"count": count, "n": 60, "drawn": drawn, "disagreements": m}
    assert theorem_a_joint_lower(**facts, region=JointRegion(0.05, weight=0.5)) == 0.0
    p_lower, upper = theorem_a_lower(**facts, alpha_count=0.025, alpha_audit=0.025)
    assert (p_lower, upper) == (0.0, count)


def test_without_audit_alpha_every_unaudited_draw_may_disagree():
    facts = {"count": 50, "n": 60, "drawn": 20, "disagreements": 2}
    p_lower, upper = theorem_a_lower(**facts, alpha_count=0.05, alpha_audit=0.0)
    assert (p_lower, upper) == (clopper_pearson_lower(18, 60, 0.05), 32)


def test_joint_bound_is_fast_enough_to_plan_with():
    region = JointRegion(ALPHA, weight=0.6)
    facts = {"count": 9_000, "n": N, "drawn": 400, "disagreements": 2, "region": region}
    theorem_a_joint_lower(**facts)
    start = time.process_time()
    for _ in range(20):
        theorem_a_joint_lower(**facts)
    assert (time.process_time() - start) / 20 < 0.01


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ((61, 60, 5, 0), "count must be at most n = 60, but got 61"),
        ((50, 60, 51, 0), "drawn must be at most count = 50, but got 51"),
        ((50, 60, 5, 6), "disagreements must be at most drawn = 5, but got 6"),
        ((50, 60, 5, -1), "disagreements must be an integer >= 0"),
        ((50.5, 60, 5, 0), "count must be an integer"),
        ((0, 0, 0, 0), "n must be an integer >= 1"),
    ],
)
def test_bad_counts(facts, words):
    counts = dict(zip(("count", "n", "drawn", "disagreements"), facts, strict=True))
    with pytest.raises(ConfigurationError, match=words):
        theorem_a_lower(**counts, alpha_count=0.02, alpha_audit=0.03)
    with pytest.raises(ConfigurationError, match=words):
        theorem_a_joint_lower(**counts, region=JointRegion(0.05, weight=0.5))
