"""Plans: what is chosen from which pilot, and that it pays as forecast."""

from __future__ import annotations

import time
from functools import cache

import numpy as np
import pytest

from deqcert.errors import ConfigurationError
from deqcert.stats import (
    JointRegion,
    certified_radius,
    clopper_pearson_lower,
    minimum_audit,
    plan_audit,
    theorem_a_joint_lower,
    theorem_a_lower,
)

N, ALPHA = 10_000, 0.001


def plan(count0, claimed=None, disagreed=0, *, n0=100, cost_ratio=0.1, audit="auto", **more):
    return plan_audit(
        n0=n0,
        count0=count0,
        pilot_claimed=count0 if claimed is None else claimed,
        pilot_disagreed=disagreed,
        n=N,
        alpha=ALPHA,
        cost_ratio=cost_ratio,
        audit=audit,
        **more,
    )


def test_a_clean_pilot_in_the_middle_is_audited():
    chosen = plan(70)
    assert chosen.method == "srs"
    assert isinstance(chosen.drawn, int)
    assert minimum_audit(ALPHA, N) <= chosen.drawn < 0.3 * N
    assert chosen.region is not None
    assert (chosen.region.alpha, chosen.region.weight) == (ALPHA, chosen.weight)
    assert chosen.alpha_count is None
    assert chosen.expected_cost == pytest.approx(0.1 * N + chosen.drawn)
    standard = plan(70, disagreed=10)
    assert standard.method == "standard"
    assert chosen.expected_radius == pytest.approx(standard.expected_radius - 0.02, abs=0.004)


@pytest.mark.parametrize(("count0", "disagreed"), [(70, 10), (90, 3), (100, 0), (99, 0)])
def test_disagreement_and_large_radii_call_for_independent_solves(count0, disagreed):
    chosen = plan(count0, disagreed=disagreed)
    assert (chosen.method, chosen.drawn, chosen.region) == ("standard", 0, None)
    assert (chosen.alpha_count, chosen.alpha_audit) == (ALPHA, 0.0)
    assert chosen.expected_cost == N


def test_a_census_where_only_known_disagreements_leave_enough_radius():
    """Wrong claims are expected: no sample of them comes close enough, but all of them do."""
    chosen = plan(70, cost_ratio=0.03, prior_rate=0.03)
    assert (chosen.method, chosen.drawn, chosen.region) == ("srs", "all", None)
    assert (chosen.alpha_count, chosen.alpha_audit) == (ALPHA, 0.0)
    assert chosen.expected_cost == pytest.approx(N * 0.73, rel=0.01)


@pytest.mark.parametrize(("count0", "gives_up"), [(0, True), (20, True), (34, True), (40, False)])
def test_abstains_only_without_hope(count0, gives_up):
    chosen = plan(count0)
    assert (chosen.method == "abstain") == gives_up
    if gives_up:
        assert (chosen.drawn, chosen.expected_radius, chosen.expected_cost) == (0, 0.0, 0.0)
        assert f"{count0} of 100" in chosen.reason


def test_never_abstains_when_an_audit_is_asked_for():
    assert plan(0, audit=400).method == "srs"


def test_dear_serialized_solves_are_not_used():
    assert plan(70, cost_ratio=1.0).method == "standard"
    assert plan(70, cost_ratio=50.0).method == "standard"


def test_a_small_clean_pilot_asks_for_a_larger_audit():
    assert plan(70).drawn > 1.3 * plan(7_000, n0=10_000).drawn


def test_more_slack_is_cheaper():
    costs = [plan(80, radius_slack=slack).expected_cost for slack in (0.0, 0.01, 0.02, 0.05, 0.2)]
    assert np.all(np.diff(costs) <= 0)
    assert costs[0] == N
    assert costs[-1] < 0.2 * N


def test_a_requested_count_is_kept_and_the_weight_chosen():
    chosen = plan(90, audit=400)
    assert (chosen.method, chosen.drawn) == ("srs", 400)
    best = max(
        certified_radius(
            theorem_a_joint_lower(
                count=9_000, n=N, drawn=400, disagreements=1, region=plan_region(weight)
            ),
            1.0,
        )
        for weight in (0.2, 0.4, 0.6, 0.8)
    )
    got = theorem_a_joint_lower(count=9_000, n=N, drawn=400, disagreements=1, region=chosen.region)
    assert certified_radius(got, 1.0) > best - 0.01


def plan_region(weight):
    return JointRegion(ALPHA, weight=weight)


def test_a_share_is_of_the_draws_expected():
    chosen = plan(90, audit=0.1)
    assert chosen.drawn == pytest.approx(0.1 * 90.5 / 101 * N, abs=2)
    assert plan(0, audit=0.1).drawn >= 1


@pytest.mark.parametrize("audit", [1.0, N])
def test_everything_requested_is_a_planned_census(audit):
    chosen = plan(90, audit=audit)
    assert (chosen.drawn, chosen.alpha_count, chosen.alpha_audit) == ("all", ALPHA, 0.0)


def test_an_audit_of_one_is_a_count():
    assert plan(90, audit=1).drawn == 1
    assert plan(90, audit=np.int64(7)).drawn == 7


@cache
def cached_plan(count0, claimed, disagreed, missed):
    return plan(count0, claimed, disagreed, pilot_missed=missed)


@cache
def radius(chosen, right, claimed, disagreements):
    if chosen.method == "abstain":
        return 0.0
    if chosen.method == "standard":
        return certified_radius(clopper_pearson_lower(right, N, ALPHA), 1.0)
    drawn = claimed if chosen.drawn == "all" else min(chosen.drawn, claimed)
    facts = {"count": claimed, "n": N, "drawn": drawn, "disagreements": disagreements}
    if chosen.region is None:
        p_lower, _ = theorem_a_lower(**facts, alpha_count=ALPHA, alpha_audit=0.0)
    else:
        p_lower = theorem_a_joint_lower(**facts, region=chosen.region)
    return certified_radius(p_lower, 1.0)


@pytest.mark.parametrize(
    ("p", "swapped", "saving", "loss"),
    [
        (0.6, 0.001, 0.6, 0.025),
        (0.75, 0.001, 0.5, 0.025),
        (0.9, 0.0005, 0.0, 0.03),
        (0.8, 0.01, 0.0, 0.03),
        (0.97, 0.005, -0.01, 0.03),
    ],
)
def test_plans_pay_over_many_pilots(p, swapped, saving, loss):
    """Pilot, plan, run and audit as drawn: mean radius lost and cost saved against `standard`.

    A share `swapped` of all draws is of the class but not claimed, and as much the reverse.
    """
    rng = np.random.default_rng(7)
    kinds = [p - swapped, swapped, swapped, 1 - p - swapped]  # both, missed, wrong claim, neither
    lost, cost = [], []
    for _ in range(150):
        both, missed, wrong, _ = rng.multinomial(100, kinds)
        chosen = cached_plan(int(both + missed), int(both + wrong), int(wrong), int(missed))
        both, missed, wrong, _ = (int(k) for k in rng.multinomial(N, kinds))
        claimed = both + wrong
        drawn = 0 if chosen.method != "srs" else claimed
        drawn = min(chosen.drawn, drawn) if isinstance(chosen.drawn, int) else drawn
        m = int(rng.hypergeometric(wrong, both, drawn)) if drawn else 0
        standard = certified_radius(clopper_pearson_lower(both + missed, N, ALPHA), 1.0)
        lost.append(standard - radius(chosen, both + missed, claimed, m))
        cost.append(0.1 * N + drawn if chosen.method == "srs" else N)
    assert np.mean(lost) < loss
    assert np.mean(cost) < (1 - saving) * N


def test_planning_is_fast():
    plan(70)
    start = time.process_time()
    for count0 in range(60, 80):
        plan(count0)
    assert (time.process_time() - start) / 20 < 0.03


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n0": 0}, "n0 must be an integer >= 1"),
        ({"count0": 101}, "count0 must be at most n0 = 100, but got 101"),
        ({"pilot_claimed": 101}, "pilot_claimed must be at most n0"),
        ({"pilot_disagreed": 91}, "pilot_disagreed must be at most pilot_claimed = 90"),
        ({"pilot_disagreed": -1}, "pilot_disagreed must be an integer >= 0"),
        ({"pilot_missed": 1}, "at most count0 = 90, but got 91"),
        ({"count0": 89}, "at most count0 = 89, but got 90"),
        ({"n": 0}, "n must be an integer >= 1"),
        ({"alpha": 0.0}, "alpha"),
        ({"cost_ratio": 0.0}, "cost_ratio must be a finite number > 0"),
        ({"audit": "some"}, "audit must be 'auto'"),
        ({"audit": N + 1}, "must not be larger than the run"),
        ({"audit": 0.0}, "share"),
        ({"radius_slack": -0.1}, "radius_slack must be >= 0"),
        ({"prior_rate": 0.0}, "prior_rate"),
        ({"prior_draws": 0.0}, "prior_draws"),
    ],
)
def test_bad_input(change, words):
    settings = {
        "n0": 100,
        "count0": 90,
        "pilot_claimed": 90,
        "pilot_disagreed": 0,
        "n": N,
        "alpha": ALPHA,
        "cost_ratio": 0.1,
    }
    with pytest.raises(ConfigurationError, match=words):
        plan_audit(**{**settings, **change})
