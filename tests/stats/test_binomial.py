"""Clopper-Pearson bounds and the majority test: exact coverage, edges, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from scipy import stats as scipy_stats

from deqcert.errors import ConfigurationError
from deqcert.stats import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    majority_p_value,
    minimum_n,
)

ALPHAS = (0.05, 0.001)


def miss_probability(lower: np.ndarray, p: np.ndarray) -> np.ndarray:
    """P(lower[X] > p) for X ~ Bin(n, p), by summing the pmf; lower has n + 1 entries."""
    n = len(lower) - 1
    pmf = scipy_stats.binom.pmf(np.arange(n + 1), n, p[:, None])
    return (pmf * (lower > p[:, None])).sum(axis=1)


def hardest(lower: np.ndarray) -> np.ndarray:
    """A grid of p, and the points just below each bound, where misses are likeliest."""
    edges = lower[(lower > 1e-6) & (lower < 1)] * (1 - 1e-12)
    return np.concatenate([np.linspace(0.001, 0.999, 101), edges])


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [1, 2, 5, 10, 37, 100, 400, 1000])
def test_lower_bound_covers(n, alpha):
    lower = clopper_pearson_lower(np.arange(n + 1), n, alpha)
    misses = miss_probability(lower, hardest(lower))
    assert misses.max() <= alpha * (1 + 1e-9)
    assert misses.max() > 0.99 * alpha  # and spends what it was given


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [1, 10, 100])
def test_upper_bound_covers(n, alpha):
    upper = clopper_pearson_upper(np.arange(n + 1), n, alpha)
    misses = miss_probability(1 - upper[::-1], hardest(1 - upper[::-1]))
    assert 0.99 * alpha < misses.max() <= alpha * (1 + 1e-9)


def test_coverage_test_sees_a_bound_that_is_slightly_wrong():
    n, alpha = 100, 0.05
    generous = clopper_pearson_lower(np.arange(n + 1), n, 1.05 * alpha)
    assert miss_probability(generous, hardest(generous)).max() > 1.02 * alpha
    wilson = _wilson_lower(np.arange(n + 1), n, alpha)
    assert miss_probability(wilson, hardest(wilson)).max() > 1.5 * alpha


def _wilson_lower(k, n, alpha):
    z = -special.ndtri(alpha)
    return (k + z**2 / 2 - z * np.sqrt(k * (n - k) / n + z**2 / 4)) / (n + z**2)


def test_edges():
    assert clopper_pearson_lower(0, 10, 0.001) == 0.0
    assert clopper_pearson_upper(10, 10, 0.001) == 1.0
    assert clopper_pearson_lower(10, 10, 0.001) == pytest.approx(0.001**0.1, rel=1e-13)
    assert clopper_pearson_upper(0, 10, 0.001) == pytest.approx(1 - 0.001**0.1, rel=1e-13)
    assert 0 < clopper_pearson_lower(3, 10, 1e-300) < 1e-90


def test_vectorised_over_count_and_alpha():
    counts, alphas = np.arange(0, 51, 10), np.array([[0.05], [0.001]])
    table = clopper_pearson_lower(counts, 50, alphas)
    assert table.shape == (2, 6)
    for i, alpha in enumerate(alphas[:, 0]):
        for j, count in enumerate(counts):
            assert table[i, j] == clopper_pearson_lower(int(count), 50, float(alpha))
    assert isinstance(clopper_pearson_lower(np.int64(3), 50, 0.05), float)


def test_monotone_in_count_and_alpha():
    table = clopper_pearson_lower(np.arange(201), 200, np.geomspace(1e-9, 0.9, 30)[:, None])
    assert np.all(np.diff(table, axis=1) > 0)
    assert np.all(np.diff(table[:, 1:], axis=0) > 0)


@pytest.mark.parametrize("n_a", range(0, 13))
def test_majority_p_value_is_the_two_sided_binomial_test(n_a):
    for n_b in range(0, 13):
        if n_a + n_b:
            truth = scipy_stats.binomtest(n_a, n_a + n_b, 0.5).pvalue
            assert majority_p_value(n_a, n_b) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [3, 10, 50, 200])
def test_majority_test_keeps_its_level_and_ties_abstain(n, alpha):
    rejects = np.array([majority_p_value(k, n - k) <= alpha for k in range(n + 1)])
    # Wrong class returned: it leads although it has probability q <= 1/2.
    for q in (0.3, 0.45, 0.5):
        pmf = scipy_stats.binom.pmf(np.arange(n + 1), n, q)
        wrong = pmf[rejects & (np.arange(n + 1) > n / 2)].sum()
        assert wrong <= alpha / 2 * (1 + 1e-9)
    if n % 2 == 0:
        assert majority_p_value(n // 2, n // 2) == 1.0


@pytest.mark.parametrize("alpha", [0.5, 0.3, 0.05, 2.0**-10, 0.001, 1e-6, 1e-100])
def test_minimum_n_is_the_least(alpha):
    n = minimum_n(alpha)
    assert alpha ** (1 / n) > 0.5 or np.log(alpha) / n > np.log(0.5)
    assert clopper_pearson_lower(n, n, alpha) > 0.5
    assert n == 1 or clopper_pearson_lower(n - 1, n - 1, alpha) <= 0.5


def test_minimum_n_by_hand():
    assert minimum_n(0.001) == 10
    assert minimum_n(2.0**-10) == 11  # (2^-10)^(1/10) is 1/2 exactly: not above it
    assert minimum_n(0.6) == 1


@pytest.mark.parametrize(
    ("count", "n", "alpha", "words"),
    [
        (-1, 10, 0.05, "count"),
        (11, 10, 0.05, "count"),
        (2.5, 10, 0.05, "whole"),
        (float("nan"), 10, 0.05, "count"),
        (True, 10, 0.05, "count"),
        (1, 0, 0.05, "n must"),
        (1, 10.0, 0.05, "n must"),
        (1, 10, 0.0, "alpha"),
        (1, 10, 1.0, "alpha"),
        (1, 10, float("nan"), "alpha"),
        (1, 10, "x", "alpha"),
    ],
)
@pytest.mark.parametrize("bound", [clopper_pearson_lower, clopper_pearson_upper])
def test_bad_input(bound, count, n, alpha, words):
    with pytest.raises(ConfigurationError, match=words):
        bound(count, n, alpha)


def test_bad_votes_and_alpha():
    with pytest.raises(ConfigurationError, match=r"n_b must be an integer >= 0, but got -1"):
        majority_p_value(3, -1)
    with pytest.raises(ConfigurationError, match=r"strictly between 0 and 1, but got 2"):
        minimum_n(2)
