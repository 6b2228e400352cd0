"""Attacks on deterministic runs: in their own norm, judged by proofs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from deqcert.checks import AttackSpec, attack_run
from deqcert.checks.pgd import project_linf
from deqcert.errors import ConfigurationError
from deqcert.models import MonDEQ
from tests.checks.runs import Forgery, make_deterministic_run, monotone_model

METHODS = ("lipschitz", "interval")
SPEC = AttackSpec(distances=(0.5, 1.0, 12.0), steps=8)


def model_of(method: str) -> MonDEQ:
    return monotone_model("quadratic" if method == "lipschitz" else "absolute")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {method: make_deterministic_run(folder / method, method) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_none_falls_inside_and_many_fall_far_outside(runs, tmp_path: Path, method: str):
    out = tmp_path / "attack"
    found = attack_run(runs[method], model=model_of(method), spec=SPEC, out=out, seed=0)
    assert found.fallen_inside == ()
    assert found.guarantee == "deterministic"
    assert found.norm == ("L2" if method == "lipschitz" else "Linf")
    assert list(found.names) == ["pgd", "random"]
    far = found.cell("pgd", 12.0)
    assert far.fell > 0.7 * far.images
    assert far.fell > found.cell("random", 12.0).fell
    for image in found.images:
        assert image["share"] == 1.0
        for outcome in image["outcomes"]:
            assert outcome["length"] <= outcome["distance"] * image["radius"]
            assert outcome["length"] > 0
    settings = json.loads((out / "attack.json").read_text())["attack"]
    assert settings == {"distances": [0.5, 1.0, 12.0], "steps": 8}


def test_it_resumes(runs, tmp_path: Path):
    def attack(out: Path, limit: int | None) -> list[dict]:
        found = attack_run(
            runs["interval"], model=model_of("interval"), spec=SPEC, limit=limit, out=out, seed=3
        )
        return [{**image, "seconds": 0} for image in found.images]

    assert len(attack(tmp_path / "a", 2)) == 2
    assert attack(tmp_path / "a", None) == attack(tmp_path / "b", None)


@pytest.mark.parametrize("method", METHODS)
def test_a_radius_too_large_is_refuted(runs, tmp_path: Path, method: str):
    forged = Forgery.of(runs[method], tmp_path / "run")
    for record in forged.records:
        record["radius"] *= 12
    forged.save()
    found = attack_run(forged.path, model=model_of(method), spec=SPEC, seed=0)
    assert len(found.fallen_inside) > 0.7 * len(found.images)


def test_another_device_is_refused(runs):
    with pytest.raises(ConfigurationError, match="on the CPU, not on 'cuda'"):
        attack_run(runs["interval"], model=model_of("interval"), device="cuda")
    assert not (runs["interval"] / "attack").exists()


def test_linf_shifts_stay_in_their_box_and_in_the_image():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(40, 1, 5, 5, generator=generator).round(decimals=1).double()
    lengths = torch.logspace(-9, 0, 40, dtype=torch.float64)
    found = project_linf(clean, clean + torch.randn(clean.shape, generator=generator), lengths)
    assert found.dtype == torch.float64
    assert float(found.min()) >= 0.0
    assert float(found.max()) <= 1.0
    moved = (found - clean).abs().flatten(1).amax(dim=1)
    assert (moved < lengths).all()
    assert (moved[:-4] > 0.99 * lengths[:-4]).all()
    rough = project_linf(clean.float(), found.float(), lengths)
    assert ((rough.double() - clean.float().double()).abs().flatten(1).amax(1) < lengths).all()
