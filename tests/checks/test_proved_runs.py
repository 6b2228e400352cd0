"""Runs of proved labels: verified, replayed, tested by draws and attacked like the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from deqcert.checks import AttackSpec, attack_run, verify
from tests.checks.runs import Edit, Forgery, make_proved_run, monotone_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_proved_run(tmp_path_factory.mktemp("run") / "run")


def test_an_untouched_run_is_clean_and_replays_to_the_bit(run: Path):
    found = verify(run, model=monotone_model(), indices=[0, 120])
    assert found.clean, found.problems
    assert found.replayed == (0, 120)
    assert found.notes == ()


def test_draws_are_proved_again(run: Path):
    found = verify(run, model=monotone_model(), draws=60, seed=0)
    assert found.clean, found.problems
    assert {check.kind for check in found.draw_checks} == {"claim"}
    assert found.draw_checks[2].found > 50


def solver(forged: Forgery) -> None:
    forged.record["reference"]["solver"] = "picard:60"


def guarantee(forged: Forgery) -> None:
    forged.record["guarantee"] = "standard"


def unproved(forged: Forgery) -> None:
    forged.record["plan"]["unproved_share"] = 0.5


def share(forged: Forgery) -> None:
    forged.record["alpha_count"] *= 2


def radius(forged: Forgery) -> None:
    forged.record["radius"] *= 1 + 1e-15


def margin_of_proof(forged: Forgery) -> None:
    forged.record["plan"]["proof"]["m"] = 2.0


def moved(forged: Forgery) -> None:
    counts, best = forged.record["counts"], forged.record["prediction"]
    other = max((c for c in range(10) if c != best), key=counts.__getitem__)
    counts[best], counts[other] = counts[best] + 1, counts[other] - 1
    forged.record["count"] += 1
    forged.refit()


@pytest.mark.parametrize(
    ("edit", "field", "replayed"),
    [
        (solver, "reference.solver", False),
        (guarantee, "guarantee", False),
        (unproved, "plan.unproved_share", False),
        (share, "alpha_count", False),
        (radius, "radius", False),
        (margin_of_proof, "plan.proof.m", True),
        (moved, "counts", True),
    ],
)
def test_corruptions_are_named(run: Path, tmp_path: Path, edit: Edit, field: str, replayed: bool):
    forged = Forgery.of(run, tmp_path / "run")
    forged.at = 3  # certified, with a label of another class
    edit(forged)
    forged.save()
    model = monotone_model()
    assert verify(forged.path, model=model).clean == replayed
    found = verify(forged.path, model=model, indices=[120] if replayed else [])
    assert (field, 120) in {(p.field, p.index) for p in found.problems}


def test_certified_images_withstand_an_attack(run: Path, tmp_path: Path):
    spec = AttackSpec(distances=(1.0, 5.0), steps=5, samples=4, n=200)
    found = attack_run(run, model=monotone_model(), spec=spec, out=tmp_path / "attack", seed=0)
    assert found.gradient == "implicit"
    assert found.fallen_inside == ()
    assert found.cell("smooth-pgd", 5.0).share < 0.3 < found.cell("random", 5.0).share
