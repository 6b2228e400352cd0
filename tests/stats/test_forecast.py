"""Forecasts are close to what the exact bounds give, and keep the pilot's uncertainty."""

from __future__ import annotations

import numpy as np
import pytest

from deqcert.stats import (
    JointRegion,
    certified_radius,
    clopper_pearson_lower,
    forecast,
    theorem_a_joint_lower,
)


@pytest.mark.parametrize(("a", "b"), [(0.5, 100.5), (70.5, 30.5), (0.1, 2.0), (9e4, 1e4), (1, 1)])
def test_quadrature_is_exact_for_polynomials(a, b):
    x, weight = forecast.beta_quadrature(a, b, 4)
    assert np.all((x > 0) & (x < 1))
    for power in range(8):
        i = np.arange(power)
        truth = np.prod((a + i) / (a + b + i))
        assert weight @ x**power == pytest.approx(truth, rel=1e-9)


def certain(p: float, d: float) -> forecast.Outlook:
    """An outlook that knows everything: misses balance the wrong claims."""
    one = np.ones(1)
    return forecast.Outlook(likelihood=one, p=p * one, claimed=p * one, disagreeing=d * one)


@pytest.mark.parametrize("drawn", [50, 400, 2000, 5000])
@pytest.mark.parametrize(("p", "d"), [(0.55, 0.0), (0.7, 0.01), (0.9, 0.002), (0.99, 0.002)])
@pytest.mark.parametrize("n", [10_000, 100_000])
def test_forecast_radius_is_near_the_exact_one(p, d, drawn, n):
    radii = forecast.audited_radii(certain(p, d), np.array([drawn]), n=n, alpha=0.001)[:, 0]
    # A forecast takes 0.1 disagreements of 50 for what they are: compare where it is whole.
    m = drawn * d
    for weight, radius in zip(forecast.WEIGHTS, radii, strict=True):
        region = JointRegion(0.001, weight=weight)
        exact = [
            certified_radius(
                theorem_a_joint_lower(
                    count=round(n * p), n=n, drawn=drawn, disagreements=k, region=region
                ),
                1.0,
            )
            for k in {int(np.floor(m)), int(np.ceil(m))}
        ]
        assert min(exact) - 0.006 <= radius <= max(exact) + 0.006


def test_standard_and_census_forecasts_are_the_exact_bounds():
    cases = certain(0.7, 0.01)
    standard = certified_radius(clopper_pearson_lower(7_000, 10_000, 0.001), 1.0)
    assert forecast.standard_radius(cases, n=10_000, alpha=0.001) == pytest.approx(standard)
    census = certified_radius(clopper_pearson_lower(6_930, 10_000, 0.001), 1.0)
    assert forecast.census_radius(cases, n=10_000, alpha=0.001) == pytest.approx(census)


def pilot(n0=100, count0=90, claimed=90, disagreed=0, missed=None):
    return forecast.outlook(
        n0=n0,
        count0=count0,
        claimed=claimed,
        disagreed=disagreed,
        missed=missed,
        prior_rate=0.02,
        prior_draws=50.0,
    )


def test_outlook_averages_to_the_posterior_means():
    cases = pilot(count0=70, claimed=69, disagreed=1, missed=2)
    assert cases.likelihood.sum() == pytest.approx(1.0)
    assert cases.mean(cases.p) == pytest.approx(70.5 / 101)
    wrong = 50 * 0.02 * (30.5 / 70.5)
    assert cases.mean(cases.disagreeing) == pytest.approx((wrong + 1) / (50 + 69))
    right = cases.mean(cases.claimed * (1 - cases.disagreeing))
    assert right == pytest.approx(70.5 / 101 * (1 - (wrong + 2) / (50 + 70)))


def test_a_small_pilot_without_disagreement_proves_little():
    small, large = pilot(), pilot(n0=10_000, count0=9_000, claimed=9_000)
    assert small.disagreeing.max() > 0.01
    assert large.disagreeing.max() < 0.001


def test_wrong_claims_never_exceed_the_draws_of_other_classes():
    cases = pilot(n0=10, count0=10, claimed=10, disagreed=0)
    false_claims = cases.claimed * cases.disagreeing
    assert np.all(false_claims <= (1 - cases.p) * (1 + 1e-12))
    assert np.all((cases.claimed > 0) & (cases.claimed <= 1))


@pytest.mark.parametrize("count0", [0, 1, 50, 100])
def test_outlook_stays_finite_at_the_edges(count0):
    cases = pilot(count0=count0, claimed=count0, disagreed=0)
    for values in (cases.p, cases.claimed, cases.disagreeing):
        assert np.all(np.isfinite(values) & (values >= 0) & (values <= 1))
    radii = forecast.audited_radii(cases, np.array([1, 100, 10_000]), n=10_000, alpha=0.001)
    assert np.all(np.isfinite(radii) & (radii >= 0))
