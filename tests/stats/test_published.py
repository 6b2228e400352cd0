"""The published rules compute what was published, faults included."""

from __future__ import annotations

import pytest

from deqcert.errors import ConfigurationError
from deqcert.stats import (
    certified_radius,
    clopper_pearson_lower,
    released_code_lower,
    theorem_3_1_lower,
)


def test_theorem_3_1_at_its_best():
    """PAPER 3: at N = 10,000, alpha 0.001, K = 400, no disagreement: R = 0.991 at sigma 0.5."""
    p_lower = theorem_3_1_lower(agreed=400, audited=400, count=10_000, n=10_000, alpha=0.001)
    assert certified_radius(p_lower, 0.5) == pytest.approx(0.991, abs=0.0005)


def test_theorem_3_1_is_two_clopper_pearson_bounds():
    rate = clopper_pearson_lower(380, 400, 0.0005)
    bound = theorem_3_1_lower(agreed=380, audited=400, count=9_000, n=10_000, alpha=0.001)
    below = clopper_pearson_lower(int(rate * 9_000), 10_000, 0.0005)
    above = clopper_pearson_lower(int(rate * 9_000) + 1, 10_000, 0.0005)
    assert below <= bound <= above


def test_the_released_code_ignores_what_the_audit_finds():
    """PAPER 3: 2.98 sigma where all labels are claimed but 40 % of them are wrong."""
    p_lower = released_code_lower(agreed=240, audited=400, count=10_000, n=10_000, alpha=0.001)
    assert certified_radius(p_lower, 1.0) == pytest.approx(2.98, abs=0.01)


@pytest.mark.parametrize("rule", [theorem_3_1_lower, released_code_lower])
def test_edges_and_bad_input(rule):
    for agreed, audited, count in ((0, 0, 0), (0, 0, 10), (0, 5, 10)):
        assert rule(agreed=agreed, audited=audited, count=count, n=10, alpha=0.05) == 0.0
    with pytest.raises(ConfigurationError, match="drawn must be at most count"):
        rule(agreed=5, audited=11, count=10, n=20, alpha=0.05)
    with pytest.raises(ConfigurationError, match="disagreements"):
        rule(agreed=6, audited=5, count=10, n=20, alpha=0.05)
    with pytest.raises(ConfigurationError, match="alpha"):
        rule(agreed=5, audited=5, count=10, n=20, alpha=1.0)
