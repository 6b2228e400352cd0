"""Impossible settings are refused before any draw, naming what would do."""

from __future__ import annotations

import pytest

from deqcert.errors import ConfigurationError
from deqcert.stats import (
    JointRegion,
    check_feasible,
    forecast,
    minimum_audit,
    minimum_n,
    theorem_a_joint_lower,
)


def can_certify(n: int, drawn: int, alpha: float) -> bool:
    return any(
        theorem_a_joint_lower(
            count=n, n=n, drawn=drawn, disagreements=0, region=JointRegion(alpha, weight=weight)
        )
        > 0.5
        for weight in forecast.WEIGHTS
    )


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("n", [60, 500, 10_000])
def test_minimum_audit_is_the_least(n, alpha):
    least = minimum_audit(alpha, n)
    assert can_certify(n, least, alpha)
    assert not can_certify(n, least - 1, alpha)
    # No valid rule could do with fewer than log2(1/alpha) draws (THEORY 3).
    assert 2.0**-least < alpha


def test_a_tiny_run_needs_a_census():
    assert minimum_audit(0.001, minimum_n(0.001)) == minimum_n(0.001)


@pytest.mark.parametrize("audit", [None, "auto", 1.0, 0.5, 100, 10_000])
def test_usual_settings_pass(audit):
    check_feasible(n=10_000, alpha=0.001, audit=audit)


@pytest.mark.parametrize(
    ("n", "alpha", "audit", "words"),
    [
        (9, 0.001, None, r"n = 9 draws can never certify at alpha = 0.001.*needs n >= 10"),
        (9, 0.001, "auto", r"needs n >= 10"),
        (10_000, 0.001, 14, r"an audit of 14 draws can never certify.*at least 15"),
        (10_000, 0.001, 0.001, r"an audit of 10 draws.*at least 15, a share of 0.0015"),
        (10_000, 0.001, 10_001, r"not be larger than the run of n = 10000 draws, but got 10001"),
        (10_000, 0.001, 0, r"audit must be an integer >= 1, but got 0"),
        (10_000, 0.001, True, r"audit must be an integer"),
        (10_000, 0.001, 1.5, r"share must lie in \(0, 1\], but got 1.5"),
        (10_000, 0.001, float("nan"), r"share"),
        (10_000, 0.001, "half", r"'auto', a count or a share, but got 'half'"),
        (0, 0.001, None, r"n must be an integer >= 1"),
        (100, 1.5, None, r"alpha must lie strictly between 0 and 1"),
    ],
)
def test_refused(n, alpha, audit, words):
    with pytest.raises(ConfigurationError, match=words):
        check_feasible(n=n, alpha=alpha, audit=audit)
