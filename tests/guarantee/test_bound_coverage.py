"""Theorems A and A' cover, exactly, against the worst serialized labels there can be.

The reference labels of n draws are i.i.d., so B = #{T = c} is Binomial(n, p). Serialized labels may
depend on all of them: an adversary sees T and picks which draws to claim. The size of the audit may
depend on the run too (THEORY 3: free before the first audit result), so the adversary picks it from
a list. As the audit is uniform, all it can achieve depends on that size and on two numbers, the
claimed draws count = t + M with t <= B right and M <= n - B wrong ones. Choosing the worst of these
for every B and summing over B and over the hypergeometric outcome of the audit gives the supremum
of the failure probability over all serialized labels: no simulation, no model of the drift.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy import special
from scipy import stats as scipy_stats

from deqcert.stats import (
    JointRegion,
    SplitRegion,
    clopper_pearson_lower,
    disagreements_upper,
    released_code_lower,
    theorem_3_1_lower,
    theorem_a_joint_lower,
    theorem_a_lower,
)


def bounds(n: int, drawn: int, rule) -> np.ndarray:  # (n + 1, drawn + 1), -inf where impossible
    """p_lower for every count and every number of disagreements; an audit has min(drawn, count)."""
    table = np.full((n + 1, drawn + 1), -np.inf)
    for count in range(n + 1):
        size = min(drawn, count)
        for m in range(size + 1):
            table[count, m] = rule(count=count, n=n, drawn=size, disagreements=m)
    return table


@lru_cache(maxsize=8)
def audit_outcomes(n: int, drawn: int) -> np.ndarray:  # (n + 1, n + 1, drawn + 1)
    """P(m disagreements | count, M wrong ones among them), exactly."""
    count, wrong, m = np.ogrid[0 : n + 1, 0 : n + 1, 0 : drawn + 1]
    size = np.minimum(drawn, count)
    possible = (wrong <= count) & (m <= wrong) & (m <= size) & (size - m <= count - wrong)
    log = _log_choose(wrong, m) + _log_choose(count - wrong, size - m) - _log_choose(count, size)
    return np.where(possible, np.exp(np.where(possible, log, 0.0)), 0.0)


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    n, k = np.maximum(n, 0), np.maximum(k, 0)
    rest = np.maximum(n - k, 0)
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(rest + 1)


def worst_failure(tables: list[np.ndarray], p: float) -> float:
    """Sup over all serialized labels and listed sizes of the audit of P(p_lower > p)."""
    n = tables[0].shape[0] - 1
    fails = np.max(
        [
            np.einsum("cwm,cm->cw", audit_outcomes(n, table.shape[1] - 1), table > p)
            for table in tables
        ],
        axis=0,
    )  # (count, M)
    count, wrong = np.ogrid[0 : n + 1, 0 : n + 1]
    right = count - wrong
    total = 0.0
    for b, likelihood in enumerate(_binomial(n, p)):
        allowed = (wrong <= n - b) & (right >= 0) & (right <= b)
        total += likelihood * fails[allowed].max()
    return total


def _binomial(n: int, p: float) -> np.ndarray:
    k = np.arange(n + 1)
    return np.exp(_log_choose(np.array(n), k) + special.xlogy(k, p) + special.xlog1py(n - k, -p))


def hardest(tables: list[np.ndarray], points: int = 30) -> np.ndarray:
    """Values of p to try: a grid, and just below bounds that occur, where failures jump up."""
    seen = np.unique(np.concatenate([table[(table > 0.01) & (table < 1)] for table in tables]))
    chosen = seen[np.linspace(0, len(seen) - 1, points).astype(int)]
    return np.concatenate([chosen * (1 - 1e-12), np.linspace(0.1, 0.99, 12)])


def worst(rule, n: int, sizes: tuple[int, ...]) -> float:
    """The largest failure probability of a rule over p, labels and the listed audit sizes."""
    tables = [bounds(n, drawn, rule) for drawn in sizes]
    return max(worst_failure(tables, p) for p in hardest(tables))


def split_rule(alpha: float, share: float):
    def rule(**facts):
        return theorem_a_lower(**facts, alpha_count=alpha * share, alpha_audit=alpha * (1 - share))[
            0
        ]

    return rule


def joint_rule(alpha: float, weight: float):
    region = JointRegion(alpha, weight=weight)
    return lambda **facts: theorem_a_joint_lower(**facts, region=region)


RUNS = [(30, (1, 30)), (60, (20,)), (60, (5, 15, 60)), (90, (5, 90))]  # n, audits


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize(("n", "sizes"), RUNS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_theorem_a_covers_the_worst_labels(n, sizes, alpha, share):
    assert worst(split_rule(alpha, share), n, sizes) <= alpha * (1 + 1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize(("n", "sizes"), RUNS)
@pytest.mark.parametrize("weight", [0.2, 0.6, 0.9])
def test_theorem_a_joint_covers_the_worst_labels(n, sizes, alpha, weight):
    assert worst(joint_rule(alpha, weight), n, sizes) <= alpha * (1 + 1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_planned_census_covers_with_the_whole_alpha(alpha):
    def census(**facts):
        return theorem_a_lower(**facts, alpha_count=alpha, alpha_audit=0.0)[0]

    assert 0.9 * alpha < worst(census, 60, (60,)) <= alpha * (1 + 1e-6)


def test_the_worst_labels_come_close_to_alpha():
    """So the tests above would see a rule that spends a little more than alpha."""
    alpha = 0.05
    assert worst(split_rule(alpha, 0.9), 110, (5, 110)) > 0.9 * alpha
    assert worst(joint_rule(alpha, 0.2), 110, (3, 60)) > 0.9 * alpha


def largest_of(rules):
    return lambda **facts: max(rule(**facts) for rule in rules)


def guessed_rate(**facts) -> float:
    """The audit's estimate in place of its bound."""
    size = max(facts["drawn"], 1)
    agree = facts["count"] * (facts["drawn"] - facts["disagreements"]) // size
    return clopper_pearson_lower(agree, facts["n"], 0.05)


def alpha_twice(**facts) -> float:
    """The whole alpha spent on the count and again on the audit."""
    upper = disagreements_upper(facts["count"], facts["drawn"], facts["disagreements"], 0.05)
    return clopper_pearson_lower(facts["count"] - upper, facts["n"], 0.05)


def unplanned_census(**facts) -> float:
    """The whole alpha on the count wherever all claimed draws happen to be audited."""
    if facts["drawn"] == facts["count"]:
        return theorem_a_lower(**facts, alpha_count=0.05, alpha_audit=0.0)[0]
    return joint_rule(0.05, 0.6)(**facts)


@pytest.mark.parametrize(
    ("rule", "at_least"),
    [
        pytest.param(
            largest_of([split_rule(0.05, s) for s in (0.02, 0.98)]), 1.1, id="split afterwards"
        ),
        pytest.param(
            largest_of([joint_rule(0.05, w) for w in (0.2, 0.95)]), 1.2, id="weight afterwards"
        ),
        pytest.param(unplanned_census, 1.1, id="census afterwards"),
        pytest.param(alpha_twice, 1.2, id="alpha spent twice"),
        pytest.param(guessed_rate, 5.0, id="estimate for bound"),
    ],
)
def test_what_is_never_valid_is_seen_to_fail(rule, at_least):
    assert worst(rule, 110, (3, 6, 60, 110)) > at_least * 0.05


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("p", [0.55, 0.7, 0.8])
@pytest.mark.parametrize("rule", [theorem_3_1_lower, released_code_lower])
def test_published_rules_fail_when_a_chain_bursts_late(rule, p, alpha):
    """The first K draws are audited and right; from then on every label is the top class.

    With X ~ Bin(K, p) right labels among the audited ones: N_1 = N_2 = X, N_A = X + n - K.
    """
    n, drawn = 2000, 100
    failed = [
        rule(agreed=x, audited=x, count=x + n - drawn, n=n, alpha=alpha) > p
        for x in range(drawn + 1)
    ]
    assert _binomial(drawn, p)[np.array(failed)].sum() > 0.5


@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_released_code_fails_even_when_its_audit_sees_the_drift(alpha):
    """Every label is the top class from the start: N_1 ~ Bin(K, p), N_2 = K, N_A = n."""
    n, drawn, p = 1000, 60, 0.6
    failed = [
        released_code_lower(agreed=x, audited=drawn, count=n, n=n, alpha=alpha) > p
        for x in range(drawn + 1)
    ]
    assert _binomial(drawn, p)[np.array(failed)].sum() > 0.99


def sticky(rng, right: np.ndarray) -> np.ndarray:
    """Chains that stay with the class for a while once they have found it."""
    leave = rng.random(right.size) < 0.1
    claimed = np.empty(right.size, dtype=bool)
    state = False
    for i, is_right in enumerate(right):
        state = bool(is_right) or (state and not leave[i])
        claimed[i] = state
    return claimed


def late_burst(rng, right: np.ndarray) -> np.ndarray:
    claimed = right.copy()
    claimed[int(rng.integers(right.size // 4, right.size)) :] = True
    return claimed


def all_of_it(rng, right: np.ndarray) -> np.ndarray:
    del rng
    return np.ones_like(right)


def when_lucky(rng, right: np.ndarray) -> np.ndarray:
    """Adds a few wrong claims exactly when the right ones are already many."""
    claimed = right.copy()
    if right.mean() > 0.72:
        claimed[rng.choice(np.flatnonzero(~right), 12, replace=False)] = True
    return claimed


@pytest.mark.parametrize("labels", [sticky, late_burst, all_of_it, when_lucky])
@pytest.mark.parametrize(
    "region",
    [JointRegion(0.05, weight=0.3), JointRegion(0.05, weight=0.75), SplitRegion(0.03, 0.02)],
    ids=["joint-0.3", "joint-0.75", "split"],
)
def test_simulated_chains_stay_within_alpha(labels, region):
    """Real label sequences and a real random audit, judged by a binomial test."""
    rng = np.random.default_rng(20)
    n, drawn, p, trials = 400, 120, 0.7, 1000
    known: dict[tuple[int, int], float] = {}
    violations = 0
    for _ in range(trials):
        right = rng.random(n) < p
        claimed = np.flatnonzero(labels(rng, right))
        audited = rng.choice(claimed, min(drawn, claimed.size), replace=False)
        key = (claimed.size, int((~right[audited]).sum()))
        if key not in known:
            known[key] = theorem_a_joint_lower(
                count=key[0], n=n, drawn=audited.size, disagreements=key[1], region=region
            )
        violations += known[key] > p
    assert scipy_stats.binomtest(violations, trials, 0.05, alternative="greater").pvalue > 1e-4
