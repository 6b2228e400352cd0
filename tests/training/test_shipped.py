"""The shipped weights: as good as their cards say, convergent, and small."""

from __future__ import annotations

import json
import math

import pytest
import torch

from deqcert.data import load_data
from deqcert.models import load_model, weights_digest
from deqcert.models.zoo import WEIGHTS
from deqcert.solvers import SolverSpec
from deqcert.training import Evaluation, TrainConfig, evaluate
from deqcert.training.recipes import RECIPES

COPIES = 5
LEAST = {"mdeq-digits-s025": (0.25, 0.95), "mdeq-digits-s050": (0.50, 0.79)}
"""Noise level, and the accuracy under it that the weights are shipped for."""

NAMES = sorted(LEAST)


@pytest.fixture(scope="module")
def found() -> dict[str, Evaluation]:
    torch.set_num_threads(1)
    data = load_data("digits", split="test")
    return {
        # A seed that no card was made with.
        name: evaluate(
            load_model(name), data, sigma=sigma, copies=COPIES, seed=20_241, steps=(1, 3, 8)
        )
        for name, (sigma, _) in LEAST.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_under_noise(found, name):
    """The test images are fixed, so only the noise varies: 3 standard errors of 5 x 397 draws."""
    _, least = LEAST[name]
    allowance = 3 * math.sqrt(least * (1 - least) / (COPIES * found[name].images))
    assert found[name].images == 397
    assert found[name].accuracy >= least - allowance


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_is_measured(found, name):
    card = load_model(name).card
    assert card is not None
    stated = card["test"]["accuracy"]
    allowance = 4 * math.sqrt(stated * (1 - stated) / (COPIES * 397))
    assert found[name].accuracy == pytest.approx(stated, abs=allowance)
    assert card["sigma"] == LEAST[name][0]
    assert card["weights"] == weights_digest(load_model(name))
    assert card["data"]["digest"] == load_data("digits", split="train").digest
    assert card == json.loads((WEIGHTS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_is_the_one_of_the_card(name):
    card = load_model(name).card
    assert card is not None
    assert TrainConfig.from_dict(card["config"]) == RECIPES["mdeq-digits"].config(
        sigma=LEAST[name][0]
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_equilibrium_exists_and_the_reference_has_its_labels(found, name):
    result = found[name]
    assert result.reference == "picard:3"
    assert result.converged >= 0.99
    assert result.agreement_by_steps[3] >= 0.995
    residuals = [result.residual_by_steps[k] for k in (1, 3, 8)]
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[-1] < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_serialized_labels_seldom_differ(found, name):
    assert found[name].disagreement_serial[2] < 0.01


def test_default_solver_is_the_reference():
    assert load_model("mdeq-digits").solver == SolverSpec("picard", 3)


def test_all_weights_together_stay_small():
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 6_000_000
    for name in NAMES:
        assert (WEIGHTS / f"{name}.safetensors").stat().st_size < 600_000
