"""Regions: area at most alpha, down-sets, and their settings."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

from deqcert.errors import ConfigurationError
from deqcert.stats import JointRegion, SplitRegion

REGIONS = [
    JointRegion(alpha, weight=weight, strip=strip)
    for alpha in (0.05, 0.001)
    for weight in (0.05, 0.3, 0.6, 0.9, 0.99)
    for strip in (0.02, 0.2)
] + [SplitRegion(0.03, 0.02), SplitRegion(0.0009, 0.0001)]


def area(region, points: int = 20_000) -> float:
    """Area below the region's edge: an upper Riemann sum on a grid dense near 0.

    The level falls with u2, so its left value on each cell makes the sum an upper bound.
    """
    u2 = np.unique(np.concatenate([[0.0], np.geomspace(1e-12, 1.0, points)]))
    return float((region.count_level(u2)[:-1] * np.diff(u2)).sum())


@pytest.mark.parametrize("region", REGIONS, ids=str)
def test_area_is_at_most_alpha_and_not_much_less(region):
    # One part in 500 for the upper sum's own excess.
    assert area(region) <= region.alpha * 1.002
    if getattr(region, "strip", 0.0) < 0.1:
        assert area(region) > 0.94 * region.alpha


@pytest.mark.parametrize("region", REGIONS, ids=str)
def test_down_set(region):
    level = region.count_level(np.linspace(0, 1, 5001))
    assert np.all(np.diff(level) <= 0)
    assert np.all((level > 0) & (level <= 1))


@pytest.mark.parametrize("region", REGIONS, ids=str)
def test_level_is_in_the_half_plane(region):
    if isinstance(region, SplitRegion):
        return
    u2 = np.geomspace(1e-6, 0.999, 500)
    u1 = region.count_level(u2)
    strips = (u1 <= region.strip * region.alpha) | (u2 <= region.strip * region.alpha)
    side = -region.weight * ndtri(u1) - np.sqrt(1 - region.weight**2) * ndtri(u2)
    assert np.all(strips | (side >= region.threshold - 1e-12))


def test_ends_of_the_square():
    region = JointRegion(0.001, weight=0.6)
    ends = region.count_level(np.array([0.0, 2e-5, 1.0]))
    np.testing.assert_allclose(ends, [1.0, 1.0, 2e-5], rtol=1e-11)
    split = SplitRegion(0.0007, 0.0003)
    assert split.alpha == pytest.approx(0.001)
    np.testing.assert_array_equal(split.count_level(np.array([0.0003, 0.00031])), [1.0, 0.0007])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: JointRegion(0.0, weight=0.5), "alpha"),
        (lambda: JointRegion(1.0, weight=0.5), "alpha"),
        (lambda: JointRegion(0.001, weight=0.0), "weight"),
        (lambda: JointRegion(0.001, weight=1.0), "weight"),
        (lambda: JointRegion(0.001, weight=0.5, strip=0.0), "strip"),
        (lambda: JointRegion(0.001, weight=0.5, strip=0.5), "strip"),
        (lambda: SplitRegion(0.0, 0.1), "alpha_count"),
        (lambda: SplitRegion(0.1, 0.0), "alpha_audit"),
        (lambda: SplitRegion(0.6, 0.5), "alpha_count"),
    ],
)
def test_bad_settings(build, words):
    with pytest.raises(ConfigurationError, match=words):
        build()
