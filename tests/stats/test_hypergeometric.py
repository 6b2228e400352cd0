"""The bound on disagreements in a population: against integers, exact coverage, edges."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy import stats as scipy_stats

from deqcert.errors import ConfigurationError
from deqcert.stats import disagreements_upper
from deqcert.stats.hypergeometric import disagreement_tail

SHAPES = [(1, 1), (7, 3), (20, 19), (60, 20), (60, 60), (200, 35)]


def exact_cdf(m, population, bad, drawn):
    ways = sum(comb(bad, j) * comb(population - bad, drawn - j) for j in range(m + 1))
    return Fraction(ways, comb(population, drawn))


@pytest.mark.parametrize(("population", "drawn"), SHAPES)
def test_tail_is_the_cdf_rounded_up(population, drawn):
    for m in {0, 1, drawn // 2, drawn - 1, drawn} & set(range(drawn + 1)):
        tail = disagreement_tail(population, drawn, m)
        assert len(tail) == population - drawn + 1
        for bad, value in enumerate(tail, start=m):
            exact = exact_cdf(m, population, bad, drawn)
            assert exact <= Fraction(float(value)) <= min(1, exact * Fraction(1 + 3e-9))


@pytest.mark.parametrize("m", [0, 3, 60, 900])
def test_tail_of_a_large_population(m):
    tail = disagreement_tail(100_000, 1_000, m)
    bad = np.unique(np.linspace(m, 100_000 - 1_000 + m, 40).astype(int))
    # logs of 10^5 factorials limit the other side of this comparison
    truth = scipy_stats.hypergeom.cdf(m, 100_000, bad, 1_000)
    np.testing.assert_allclose(tail[bad - m], truth, rtol=1e-6, atol=1e-250)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize(("population", "drawn"), SHAPES)
def test_covers_every_population(population, drawn, alpha):
    upper = np.array([disagreements_upper(population, drawn, m, alpha) for m in range(drawn + 1)])
    missed = []
    for bad in range(population + 1):
        pmf = scipy_stats.hypergeom.pmf(np.arange(drawn + 1), population, bad, drawn)
        missed.append(pmf[upper < bad].sum())
    assert max(missed) <= alpha * (1 + 1e-9)


def test_coverage_is_tight():
    """One less would not cover: the bound is the smallest of its kind."""
    population, drawn, alpha = 200, 35, 0.05
    for m in range(20):
        bad = disagreements_upper(population, drawn, m, alpha)
        assert exact_cdf(m, population, bad, drawn) > alpha
        assert exact_cdf(m, population, bad + 1, drawn) <= alpha


@pytest.mark.parametrize("alpha", [0.0, 0.001, 0.5])
def test_a_census_is_exact(alpha):
    assert [disagreements_upper(9, 9, m, alpha) for m in (0, 4, 9)] == [0, 4, 9]


@pytest.mark.parametrize("alpha", [0.0, 0.001, 0.5])
def test_no_sample_and_no_population(alpha):
    assert disagreements_upper(50, 0, 0, alpha) == 50
    assert disagreements_upper(0, 0, 0, alpha) == 0


def test_all_drawn_disagree():
    assert disagreements_upper(50, 10, 10, 0.01) == 50


def test_without_alpha_nothing_is_excluded():
    assert disagreements_upper(50, 10, 3, 0.0) == 43


@pytest.mark.parametrize(
    ("population", "drawn", "m", "alpha", "words"),
    [
        (10, 11, 0, 0.1, "drawn must be at most count = 10"),
        (10, 5, 6, 0.1, "disagreements must be at most drawn = 5"),
        (-1, 0, 0, 0.1, "population"),
        (10, 5, -1, 0.1, "disagreements"),
        (10, 5, 1, 1.0, "alpha"),
        (10, 5, 1, -0.1, "alpha"),
        (10, 5, 1, float("nan"), "alpha"),
        (10.0, 5, 1, 0.1, "population"),
    ],
)
def test_bad_input(population, drawn, m, alpha, words):
    with pytest.raises(ConfigurationError, match=words):
        disagreements_upper(population, drawn, m, alpha)
