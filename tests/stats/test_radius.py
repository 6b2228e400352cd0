"""The radius is never above the truth, and finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
from mpmath import mp, mpf
from scipy.stats import norm

from deqcert.errors import ConfigurationError
from deqcert.stats import certified_radius, clopper_pearson_lower


def never_above(p: float, sigma: float) -> bool:
    """Phi(radius / sigma) <= p, in 40 digits."""
    with mp.workdps(40):
        return mp.ncdf(mpf(certified_radius(p, sigma)) / mpf(sigma)) <= mpf(p)


def test_never_above_the_truth():
    rng = np.random.default_rng(0)
    near_half = 0.5 + np.geomspace(2**-52, 0.4, 200)
    near_one = 1 - np.geomspace(2**-53, 0.4, 200)
    for p in np.concatenate([near_half, near_one, rng.uniform(0.5, 1, 200)]):
        if 0.5 < p < 1:
            assert never_above(float(p), float(rng.choice([0.12, 0.25, 1 / 3, 1.0, 7.7])))


@pytest.mark.parametrize("sigma", [0.7, 0.9, 0.12, 0.25, 1 / 3])
def test_noise_of_float32_is_at_least_as_wide(sigma: float):
    """What is drawn has the deviation that float32 has for sigma: .9 is less there."""
    made = float(np.float32(sigma))
    for p in (0.51, 0.8, 0.999):
        with mp.workdps(40):
            assert mp.ncdf(mpf(certified_radius(p, sigma)) / mpf(made)) <= mpf(p)
        assert certified_radius(p, sigma) == pytest.approx(sigma * norm.ppf(p), rel=1e-7)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5])
def test_no_radius_without_a_majority(p):
    assert certified_radius(p, sigma=0.5) == 0.0


def test_smallest_majority_has_a_radius():
    assert 0 < certified_radius(math.nextafter(0.5, 1), sigma=0.5) < 1e-15


def test_finite_up_to_one():
    below = certified_radius(math.nextafter(1.0, 0.0), sigma=1.0)
    assert 8.2 < below < 8.3
    assert certified_radius(1.0, sigma=1.0) == below


def test_monotone_and_proportional():
    radii = [certified_radius(p, 0.25) for p in np.linspace(0.5, 1, 1001)]
    assert np.all(np.diff(radii) > 0)
    assert certified_radius(0.9, 0.5) == 2 * certified_radius(0.9, 0.25)


def test_numbers_of_the_field():
    """3.20 sigma: all of 10,000 draws at alpha 0.001 (THEORY 3)."""
    assert certified_radius(clopper_pearson_lower(10_000, 10_000, 0.001), 1.0) == pytest.approx(
        3.20, abs=0.005
    )


@pytest.mark.parametrize(
    ("p", "sigma", "words"),
    [
        (-0.1, 1.0, "p_lower"),
        (1.1, 1.0, "p_lower"),
        (float("nan"), 1.0, "p_lower"),
        (0.9, 0.0, "sigma"),
        (0.9, -1.0, "sigma"),
        (0.9, float("inf"), "sigma"),
        (0.9, float("nan"), "sigma"),
        (0.9, "0.5", "sigma"),
    ],
)
def test_bad_input(p, sigma, words):
    with pytest.raises(ConfigurationError, match=words):
        certified_radius(p, sigma)
