"""Every statistic against 50-digit arithmetic (`generate_reference.py` wrote the numbers)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deqcert import stats

REFERENCE = json.loads(Path(__file__).with_name("reference.json").read_text())


def rows(name: str) -> list:
    return [pytest.param(*row, id="-".join(map(str, row[:-1]))) for row in REFERENCE[name]]


@pytest.mark.parametrize(("k", "n", "alpha", "truth"), rows("clopper_pearson_lower"))
def test_clopper_pearson_lower_is_the_truth_rounded_down(k, n, alpha, truth):
    bound = stats.clopper_pearson_lower(k, n, alpha)
    assert bound == pytest.approx(float(truth), rel=1e-12)
    assert bound <= float(truth)


@pytest.mark.parametrize(("k", "n", "alpha", "truth"), rows("clopper_pearson_lower"))
def test_clopper_pearson_upper_mirrors_it_rounded_up(k, n, alpha, truth):
    bound = stats.clopper_pearson_upper(n - k, n, alpha)
    assert bound == pytest.approx(1 - float(truth), abs=1e-12)
    assert bound >= 1 - float(truth)


@pytest.mark.parametrize(("p", "truth"), rows("certified_radius"))
def test_radius_is_the_truth_rounded_down(p, truth):
    radius = stats.certified_radius(p, sigma=1.0)
    assert radius == pytest.approx(float(truth), rel=4e-15)
    assert radius <= float(truth)


@pytest.mark.parametrize(
    ("population", "drawn", "m", "alpha", "truth"), rows("disagreements_upper")
)
def test_disagreements_upper_is_exact(population, drawn, m, alpha, truth):
    assert stats.disagreements_upper(population, drawn, m, alpha) == truth


@pytest.mark.parametrize(("n_a", "n_b", "truth"), rows("majority_p_value"))
def test_majority_p_value(n_a, n_b, truth):
    assert stats.majority_p_value(n_a, n_b) == pytest.approx(float(truth), rel=1e-12)


@pytest.mark.parametrize(
    ("count", "n", "drawn", "m", "alpha", "weight", "strip", "truth"),
    rows("theorem_a_joint_lower"),
)
def test_joint_bound_is_its_definition(count, n, drawn, m, alpha, weight, strip, truth):
    bound = stats.theorem_a_joint_lower(
        count=count,
        n=n,
        drawn=drawn,
        disagreements=m,
        region=stats.JointRegion(alpha, weight=weight, strip=strip),
    )
    assert bound == pytest.approx(float(truth), rel=1e-8)
    assert bound <= float(truth) + 2.0**-45  # the reference's own last step
