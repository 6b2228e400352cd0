"""Comparing two radii of one image: what may differ by chance may, and nothing else."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from paired import Pair, paired_summary, report

SIGMA, ALPHA, N = 0.5, 0.001, 4000


def made(slow: np.ndarray, fast: np.ndarray) -> Pair:
    return Pair(
        label=1,
        slow_class=1,
        fast_class=1,
        n=len(slow),
        slow_count=int(slow.sum()),
        fast_count=int(fast.sum()),
        only_slow=int((slow & ~fast).sum()),
        only_fast=int((fast & ~slow).sum()),
        disagreements=int((slow != fast).sum()),
    )


def difference(pair: Pair) -> float:
    slow = pair.radius(pair.slow_count, SIGMA, ALPHA)
    return abs(slow - pair.radius(pair.fast_count, SIGMA, ALPHA))


@pytest.mark.parametrize("p", [0.7, 0.9, 0.99])
@pytest.mark.parametrize("flipped", [0.005, 0.05])
def test_equal_classifiers_are_within_their_sampling_error(p, flipped):
    """Labels that differ on some draws, as often one way as the other: 95 % stay within."""
    generator = np.random.default_rng(5)
    within = []
    for _ in range(200):
        slow = generator.random(N) < p
        # A flip keeps the share of the class only where both ways are equally likely.
        to_wrong = slow & (generator.random(N) < flipped * (1 - p))
        to_right = ~slow & (generator.random(N) < flipped * p)
        pair = made(slow, (slow & ~to_wrong) | to_right)
        within.append(difference(pair) <= pair.allowed(SIGMA, ALPHA) - 0.02 * SIGMA)
    assert np.mean(within) >= 0.92


def test_a_worse_classifier_is_not_within():
    generator = np.random.default_rng(6)
    slow = generator.random(N) < 0.8
    pair = made(slow, slow & (generator.random(N) < 0.95))
    assert difference(pair) > pair.allowed(SIGMA, ALPHA)


def results(pairs: list[Pair]) -> dict:
    full = {"seconds": 0.5, "radius": 0.6, "cell_evaluations": 30_300}
    found = {
        f"image {k}": {"pair": asdict(p), "ours": {**full, "prediction": p.fast_class}}
        for k, p in enumerate(pairs)
    }
    found["time 0"] = {
        "draws": 500, "timed_n": 400, "seconds_per_draw": 0.01,
        "ours": {"seconds": 0.5, "cell_evaluations": 20_200},
    }  # fmt: skip
    return found


def test_summary_of_equal_sides():
    generator = np.random.default_rng(7)
    pairs = [made(d, d) for d in (generator.random((12, N)) < 0.9)]
    found = paired_summary(results(pairs), sigma=SIGMA, alpha=ALPHA, n=10_000)
    assert found["radii_within"] == 1.0
    ratio = found["average_certified_radius"]["ratio"]
    assert ratio == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["certified_accuracy"]["0.25"] == {"slow": 1.0, "ours": 1.0}
    # 0.01 s a draw, 100 + 10,000 draws, beside half a second.
    assert found["time"]["ratio"] == pytest.approx(202)
    assert found["time"]["other_timed_draws"] == 500
    assert "202.0 times less" in report(found)
    assert "of ours: 3.00 over all images, 2.00 over those that were timed" in report(found)


def test_summary_tells_classes_and_radii_apart():
    generator = np.random.default_rng(8)
    right = generator.random(N) < 0.9
    same = made(right, right)
    other_class = Pair(**{**asdict(same), "fast_class": 2})
    worse = made(right, right & (generator.random(N) < 0.9))
    found = paired_summary(results([same, same, other_class, worse]), sigma=SIGMA, alpha=ALPHA, n=N)
    assert found["radii_within"] == 0.5
    assert found["certified_accuracy"]["0"] == {"slow": 1.0, "ours": 0.75}
    # With all draws the radii are 0.6, of another class for one image of four.
    full = found["ours_in_full"]["certified_accuracy"]
    assert (full["0"], full["0.5"], full["0.75"]) == (0.75, 0.75, 0.0)
    assert found["ours_in_full"]["average_certified_radius"] == pytest.approx(0.45)
    assert "| ours, n = 4,000 | 75 % | 75 % | 75 % | 0 % |" in report(found)
    assert found["average_certified_radius"]["ratio"]["value"] < 0.75


def test_nothing_measured_yet():
    found = paired_summary({}, sigma=SIGMA, alpha=ALPHA, n=N)
    assert report(found) == "no images yet\n"
