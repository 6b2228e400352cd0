"""Whole certificates of a linear DEQ, whose smoothed class and radius are known exactly.

The k-th Picard iterate of a linear cell from zero is a positive multiple of the injection, so the
base classifier is a half-plane, the class probability a normal cdf, and the true radius the
distance to the line. Valid certificates exceed it with probability at most alpha.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from deqcert.smoothing import Certifier
from deqcert.stats import JointRegion, clopper_pearson_lower, theorem_a_joint_lower
from tests.problems import LinearDEQ, image_at, margin_for, violations_allowed

SIGMA = 0.25
N, N0 = 400, 30


def certifier(
    method: str, alpha: float, audit: int | float | str = "auto", n: int = N
) -> Certifier:
    return Certifier(
        LinearDEQ(),
        sigma=SIGMA,
        n0=N0,
        n=n,
        alpha=alpha,
        method=method,
        serial="picard:1",
        warmup="picard:3",
        chains=192,  # a whole hardware batch, and two rounds of it and a part
        audit=audit,
    )


def violates(certificate, margin: float) -> bool:
    """Whether the claim is wrong: another class than the smoothed one, or too large a radius."""
    if certificate.prediction is None:
        return False
    truth = 1 if margin > 0 else 0
    return certificate.prediction != truth or certificate.radius > abs(margin)


@pytest.mark.parametrize(
    ("method", "audit", "alpha", "trials"),
    [
        ("standard", "auto", 0.05, 1500),
        ("standard", "auto", 0.001, 1000),
        ("srs", 80, 0.05, 800),
        ("srs", 80, 0.001, 500),
        ("srs", "auto", 0.05, 500),
        ("srs", 0.9, 0.05, 400),
        ("srs", 1.0, 0.05, 400),
    ],
)
def test_violations_stay_within_alpha(
    method: str, audit: int | float | str, alpha: float, trials: int
):
    subject = certifier(method, alpha, audit)
    violations = certified = 0
    for trial in range(trials):
        margin = margin_for((0.55, 0.6, 0.75, 0.95)[trial % 4], SIGMA)
        found = subject.certify(image_at(margin), seed=trial)
        certified += found.prediction is not None
        violations += violates(found, margin)
    assert certified > 0.25 * trials  # an abstaining certifier would prove nothing
    assert violations <= violations_allowed(trials, alpha)


def test_the_check_itself_can_fail():
    """The same count of violations convicts a rule that claims the plain proportion."""
    subject = certifier("standard", 0.05)
    margin = margin_for(0.75, SIGMA)
    overclaims = sum(
        subject.certify(image_at(margin), seed=trial).count / N > norm.cdf(margin / SIGMA)
        for trial in range(200)
    )
    assert overclaims > violations_allowed(200, 0.05)


@pytest.mark.parametrize("probability", [0.7, 0.9, 0.99])
def test_standard_radii_are_as_large_as_the_draws_allow(probability: float):
    margin = margin_for(probability, SIGMA)
    subject = certifier("standard", 0.001, n=2000)
    radii = [subject.certify(image_at(margin), seed=seed).radius for seed in range(60)]
    best = SIGMA * norm.ppf(clopper_pearson_lower(round(2000 * probability), 2000, 0.001))
    assert np.median(radii) == pytest.approx(best, rel=0.05)


@pytest.mark.parametrize("probability", [0.7, 0.9, 0.99])
def test_audited_radii_are_as_large_as_the_draws_allow(probability: float):
    """Optimum: the best weight's bound at the counts that came out in the middle."""
    margin = margin_for(probability, SIGMA)
    n, drawn = 2000, 400
    subject = Certifier(
        LinearDEQ(),
        sigma=SIGMA,
        n0=100,
        n=n,
        method="srs",
        serial="picard:3",
        warmup="picard:3",
        audit=drawn,
    )
    found = [subject.certify(image_at(margin), seed=seed) for seed in range(40)]
    assert all(f.guarantee == "audited" and f.audit is not None for f in found)
    disagreed = round(np.median([f.audit.disagreements for f in found]))
    count = round(np.median([f.audit.population for f in found]))
    assert count == pytest.approx(n * probability, rel=0.03)
    facts = {"count": count, "n": n, "drawn": drawn, "disagreements": disagreed}
    weights = np.linspace(0.05, 0.98, 60)
    bounds = [theorem_a_joint_lower(**facts, region=JointRegion(0.001, w)) for w in weights]
    radii = [f.radius for f in found]
    assert np.median(radii) == pytest.approx(SIGMA * norm.ppf(max(bounds)), rel=0.08)
