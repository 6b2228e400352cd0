"""Tests of chosen draws: honest runs pass, false ones are found as promised, exactly computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from deqcert.checks import verify
from deqcert.checks.draws import (
    ERROR,
    POWER,
    claim_refuted_below,
    counts_refuted_below,
    hypergeometric_tail,
)
from tests.checks.runs import METHODS, Forgery, MeansDEQ, make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {method: make_run(folder / method, method) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_honest_runs_are_not_accused(runs, method: str, seed: int):
    found = verify(runs[method], model=MeansDEQ(), draws=60, seed=seed)
    assert found.clean, found.problems
    assert found.replayed == ()
    assert [check.index for check in found.draw_checks] == list(range(0, 400, 40))
    kinds = {"standard": "counts", "srs": "claim", "srs-paper": "claim"}
    assert {check.kind for check in found.draw_checks} == {kinds[method]}
    assert all(check.draws == 60 and check.p_value > check.level for check in found.draw_checks)


@pytest.mark.parametrize(("n", "total", "drawn"), [(240, 200, 60), (50, 3, 20), (30, 30, 7)])
@pytest.mark.parametrize("level", [0.05, 1e-3, 1e-6])
def test_a_true_count_is_accused_with_the_stated_probability_at_most(n, total, drawn, level):
    """Summed over the pmf: both tails together err with at most twice the level."""
    found = np.arange(drawn + 1)
    accused = [hypergeometric_tail(n, total, drawn, int(k)) <= level for k in found]
    chance = stats.hypergeom.pmf(found, n, total, drawn)[accused].sum()
    assert chance <= 2 * level * (1 + 1e-9)


@pytest.mark.parametrize(("n", "recorded", "drawn"), [(10_000, 9_000, 1000), (240, 230, 120)])
def test_what_would_have_been_found_is_found_and_no_more_is_promised(n, recorded, drawn):
    level = ERROR / 100
    true = counts_refuted_below(n, recorded, drawn, level)
    assert true is not None

    def power(k: int) -> float:
        """Probability that a record of `recorded` is accused where k is true."""
        found = np.arange(drawn + 1)
        accused = [stats.hypergeom.cdf(x, n, recorded, drawn) <= level for x in found]
        return float(stats.hypergeom.pmf(found, n, k, drawn)[accused].sum())

    assert power(true) >= POWER > power(true + 1)


@pytest.mark.parametrize(("p_lower", "draws"), [(0.9, 500), (0.55, 2000), (0.999, 100)])
def test_the_claim_test_finds_what_it_says(p_lower, draws):
    level = ERROR / 10
    p = claim_refuted_below(p_lower, draws, level)
    assert p is not None
    found = np.arange(draws + 1)
    accused = stats.binom.cdf(found, draws, p_lower) <= level
    assert stats.binom.pmf(found, draws, p_lower)[accused].sum() <= level
    assert stats.binom.pmf(found, draws, p)[accused].sum() == pytest.approx(POWER, abs=1e-6)


def test_too_few_draws_promise_nothing(runs):
    assert counts_refuted_below(240, 100, 3, 1e-8) is None
    assert claim_refuted_below(0.6, 3, 1e-8) is None
    found = verify(runs["standard"], model=MeansDEQ(), draws=3, indices=[40], seed=0)
    assert found.draw_checks[0].conclusion.startswith("too few draws")


def test_all_draws_find_any_count(runs, tmp_path: Path):
    """With D = n the test is exact: one label moved is one too many."""
    forged = Forgery.of(runs["standard"], tmp_path / "run")
    counts, best = forged.record["counts"], forged.record["prediction"]
    other = max((c for c in range(10) if c != best), key=counts.__getitem__)
    counts[best], counts[other] = counts[best] + 1, counts[other] - 1
    forged.record["count"] += 1
    forged.refit()
    forged.save()
    index = forged.record["index"]
    found = verify(tmp_path / "run", model=MeansDEQ(), indices=[index], draws=240, seed=0)
    assert {p.field for p in found.problems} == {f"counts[{best}]", f"counts[{other}]"}


def test_a_much_raised_count_is_found_by_some_of_the_draws(runs, tmp_path: Path):
    forged = Forgery.of(runs["standard"], tmp_path / "run")
    counts, best = forged.record["counts"], forged.record["prediction"]
    for other in range(10):
        moved = counts[other] if other != best else 0
        counts[best], counts[other] = counts[best] + moved, counts[other] - moved
    forged.record["count"] = counts[best]
    forged.refit()
    forged.save()
    index = forged.record["index"]
    assert verify(tmp_path / "run", model=MeansDEQ()).clean
    found = verify(tmp_path / "run", model=MeansDEQ(), indices=[index], draws=120, seed=3)
    assert f"counts[{best}]" in {p.field for p in found.problems}


def test_a_false_claim_is_refuted_by_fresh_draws(runs, tmp_path: Path):
    """An invented certificate of a class that the classifier gives to half of the draws."""
    forged = Forgery.of(runs["srs"], tmp_path / "run")
    for record in forged.records:
        other = (record["prediction"] + 1) % 10
        for name, total in (("counts0", 40), ("counts", 240)):
            record[name] = [0] * 10
            record[name][other] = total
        record["audit"].update(population=240, drawn=120, disagreements=0)
        record["count"] = 240
    for at in range(len(forged.records)):
        forged.at = at
        forged.refit()
    forged.save()
    found = verify(tmp_path / "run", model=MeansDEQ(), indices=[80], draws=40, seed=0)
    assert {(p.field, p.index) for p in found.problems} == {("counts0", 80), ("p_lower", 80)}
