"""The shipped `mdeq-small`: the published architecture, with a card that says what is measured."""

from __future__ import annotations

import json
import math

import pytest
import torch

from deqcert.data import load_data
from deqcert.models import load_model, weights_digest
from deqcert.models.zoo import ARCHITECTURES, WEIGHTS
from deqcert.training import Evaluation, TrainConfig, evaluate

NAME = "mdeq-small-s050"
COPIES = 1


@pytest.fixture(scope="module")
def card() -> dict:
    found = load_model(NAME).card
    assert found is not None
    return found


@pytest.fixture(scope="module")
def found(cifar_folder) -> Evaluation:
    torch.set_num_threads(1)
    data = load_data("cifar10", split="test", folder=cifar_folder)
    # A seed that no card was made with, and images between those of the card.
    rows = range(10, len(data), 100)
    return evaluate(
        load_model(NAME),
        data,
        sigma=0.5,
        indices=rows,
        copies=COPIES,
        seed=20_241,
        steps=(1, 3),
    )


def test_it_is_the_published_architecture(card):
    model = load_model(NAME)
    published = ARCHITECTURES["mdeq-small"]
    changes = card["model"]["settings"]
    assert set(changes) == {"dropout", "solver"}, "training alone, and the default solver"
    assert model.config == published.replace(**changes)
    assert sum(p.numel() for p in model.parameters()) == 249_883 == card["parameters"]


def test_the_card_names_weights_data_and_how_far_training_came(card):
    assert card == json.loads((WEIGHTS / f"{NAME}.json").read_text())
    assert card["weights"] == weights_digest(load_model(NAME))
    config = TrainConfig.from_dict(card["config"])
    assert config.sigma == card["sigma"] == 0.5
    assert set(card["test"]["accuracy_by_steps"]) == {"1", "2", "3", "5", "8", "12", "30"}
    assert "an estimate" in card["spectral_radius_estimate"]["method"]
    if card["epochs"] < config.epochs:
        assert f"after {card['epochs']} of {config.epochs} epochs" in card["note"]


def test_it_is_small():
    assert (WEIGHTS / f"{NAME}.safetensors").stat().st_size < 2_000_000


def test_accuracy_under_noise_is_the_one_of_the_card(card, found):
    """Other images than the card's: 4 standard errors of both, as if copies were no help."""
    stated = card["test"]["accuracy"]
    assert stated > 0.57, "what it is shipped for"
    spread = stated * (1 - stated) * (1 / found.images + 1 / card["test"]["images"])
    assert found.accuracy == pytest.approx(stated, abs=4 * math.sqrt(spread))
