"""The shipped monotone DEQs: accurate, certified, and quick to prove."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from deqcert.data import load_data
from deqcert.deterministic import LipschitzCertifier
from deqcert.models import MonDEQ, inference_copy, load_model, solve_rows, weights_digest
from deqcert.models.zoo import WEIGHTS
from deqcert.training import TrainConfig
from deqcert.training.recipes import RECIPES

NAMES = {"mondeq-fc-s000": 0.0, "mondeq-fc-s050": 0.5}
PUBLISHED_ERROR, PUBLISHED_LIPSCHITZ = 0.044, 3.84
"""Of 40 units at m = 20, the latter of the logits, for standardised images (PAPER 5)."""


@pytest.fixture(scope="module")
def test_set(originals):
    return load_data("mnist", split="test", folder=originals)


def model_of(name: str) -> MonDEQ:
    model = load_model(name)
    assert isinstance(model, MonDEQ)
    return model


@pytest.mark.parametrize("name", sorted(NAMES))
def test_cards_and_recipes_fit(name):
    model = model_of(name)
    assert model.card == json.loads((WEIGHTS / f"{name}.json").read_text())
    assert model.card is not None
    assert model.card["weights"] == weights_digest(model)
    assert model.card["sigma"] == NAMES[name]
    config = TrainConfig.from_dict(model.card["config"])
    assert config == RECIPES["mondeq-fc"].config(sigma=NAMES[name])
    assert (model.config.width, model.config.m) == (40, 20.0)
    assert (WEIGHTS / f"{name}.safetensors").stat().st_size < 200_000


def test_at_least_as_good_as_published(test_set):
    """All 10,000 test images at their exact equilibrium."""
    certifier = LipschitzCertifier(model_of("mondeq-fc-s000"))
    images, labels = test_set.batch(np.arange(len(test_set)))
    certificates = certifier.certify(images)
    right = np.array(
        [c.prediction == label for c, label in zip(certificates, labels.tolist(), strict=True)]
    )
    assert 1 - right.mean() <= PUBLISHED_ERROR
    head = certifier.model.head.exact().map.norm
    assert certifier.lipschitz * head * certifier.model.config.std[0] <= PUBLISHED_LIPSCHITZ
    radius = np.array([c.radius for c in certificates])
    assert (right & (radius > 0.25)).mean() > 0.8
    assert max(c.distance for c in certificates) < 1e-6


def test_under_noise(test_set):
    model = inference_copy(model_of("mondeq-fc-s050"))
    images, labels = test_set.batch(np.arange(0, len(test_set), 4))
    noisy = images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
    logits, _ = solve_rows(model, noisy, "picard:30")
    share = float((logits.argmax(dim=1) == labels).double().mean())
    stated = model.card["test"]["accuracy"]  # pyright: ignore[reportOptionalSubscript]
    assert share == pytest.approx(stated, abs=4 * math.sqrt(stated * (1 - stated) / len(images)))
    assert stated > 0.9


@pytest.mark.parametrize(("name", "most"), [("mondeq-fc-s000", 2.5), ("mondeq-fc-s050", 2.0)])
def test_serialized_labels_are_proved_in_a_few_steps(name, most, test_set):
    """2,000 noisy copies of each of five images, every solve starting where the last one ended.

    A long reference solve spends 30 steps.
    """
    model = inference_copy(model_of(name))
    assert isinstance(model, MonDEQ)
    generator = torch.Generator().manual_seed(6)
    spent = draws = 0
    for index in range(5):
        image, state = test_set[index].image, None
        for _ in range(5):
            noisy = image + 0.5 * torch.randn(400, 1, 28, 28, generator=generator)
            injection = model.inject(noisy)
            state = model.initial_state(injection) if state is None else state
            label = torch.full((400,), -1)
            for _ in range(8):
                spent += int((label < 0).sum())
                proof = model.prove(state, injection)
                label, state = torch.where(label < 0, proof.label, label), proof.state
                assert isinstance(state, torch.Tensor)
            logits, _ = solve_rows(model, noisy, "picard:30")
            proved = label >= 0
            assert torch.equal(label[proved], logits.argmax(dim=1)[proved])
            assert float(proved.float().mean()) > 0.999
            draws += len(label)
    assert spent < most * draws
