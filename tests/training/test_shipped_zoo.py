"""Every trained model that ships: small, made by the command on its card, as good as it says."""

from __future__ import annotations

import json
import math
import shlex

import numpy as np
import pytest
import torch

from deqcert.data import load_data
from deqcert.models import available_models, inference_copy, load_model, solve_rows, weights_digest
from deqcert.models.zoo import WEIGHTS

ENTRIES = {e.name: e for e in available_models() if e.pretrained and e.name != e.architecture}
MOST_BYTES = 2_000_000
LEAST = {
    "mdeq-fashion-s050": 0.81,
    "mdeq-mnist-s050": 0.97,
    "mondeq-conv-fashion-s000": 0.83,
    "mondeq-fc-fashion-s000": 0.85,
    "mondeq-fc-fashion-s050": 0.79,
    "mondeq-ibp-s000": 0.95,
}
"""Accuracy at their own noise level that these are shipped for."""


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_the_card_is_that_of_the_weights(name):
    model = load_model(name)
    assert model.card is not None
    assert model.card == json.loads((WEIGHTS / f"{name}.json").read_text())
    assert model.card["weights"] == weights_digest(model)
    assert (WEIGHTS / f"{name}.safetensors").stat().st_size < MOST_BYTES
    words = shlex.split(model.card["command"])
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert words[:2] == ["deqcert", "train"]
    assert given["--model"] == ENTRIES[name].architecture
    assert float(given["--sigma"]) == model.card["sigma"]
    assert given["--data"] == model.card["data"]["name"]


@pytest.mark.parametrize("name", sorted(LEAST))
def test_it_is_as_good_as_its_card_says(name, originals):
    model = load_model(name)
    assert model.card is not None
    data = load_data(model.card["data"]["name"], split="test", folder=originals)
    every = 40 if "conv" in name else 20  # exact solves by convolutions take a while
    images, labels = data.batch(np.arange(0, len(data), every))
    generator = torch.Generator().manual_seed(5)
    noisy = images + model.card["sigma"] * torch.randn(images.shape, generator=generator)
    logits, _ = solve_rows(inference_copy(model), noisy, model.solver)
    share = float((logits.argmax(dim=1) == labels).double().mean())
    stated = model.card["test"]["accuracy"]
    # Both are shares of samples, this one of 250 or 500 images.
    assert share == pytest.approx(stated, abs=4 * math.sqrt(stated * (1 - stated) / len(images)))
    assert stated > LEAST[name]
