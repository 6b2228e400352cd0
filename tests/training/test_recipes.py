"""Recipes: complete, as published where they say so, and runnable."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from deqcert.data import load_data
from deqcert.errors import ConfigurationError, UnknownNameError
from deqcert.models import build
from deqcert.training import TrainConfig, find_recipe, train
from deqcert.training.optimizer import make_optimizer
from deqcert.training.recipes import PUBLISHED, RECIPES
from deqcert.training.schedule import jacobian_weight, learning_rate
from tests.training.small import ScalarModel, few_digits


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_are_whole_and_survive_json(name):
    config = RECIPES[name].config(sigma=0.25, seed=3)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert (config.sigma, config.seed) == (0.25, 3)


@pytest.mark.parametrize("model", sorted(PUBLISHED))
def test_their_model_settings_fit(model):
    for name in (None, "published"):
        recipe = find_recipe(name, model=model)
        with torch.device("meta"):
            built = build(model, **recipe.model)
        assert built.input_shape == build_shape(model)


def build_shape(model: str) -> tuple[int, int, int]:
    return (3, 224, 224) if "imagenet" in model else (3, 32, 32)


def test_defaults_by_model():
    assert find_recipe(None, model="mdeq-digits").name == "mdeq-digits"
    assert find_recipe(None, model="mdeq-small").name == "short-solve"
    assert find_recipe("published", model="mdeq-large").name == "published-large"
    with pytest.raises(UnknownNameError, match="short-solve"):
        find_recipe("short-solv", model="mdeq-small")
    with pytest.raises(ConfigurationError, match="mdeq-large"):
        find_recipe("published", model="mdeq-digits")


def test_the_published_rates_end_at_1e_6():
    for name, peak in (("published-small", 1e-3), ("published-imagenet", 0.04)):
        config = RECIPES[name].config(sigma=0.5)
        assert learning_rate(config, 0, 1000) == pytest.approx(peak)
        assert learning_rate(config, 1000, 1000) == pytest.approx(1e-6)


def test_the_published_jacobian_weights():
    """As in the public loop: steps count from the end of pre-training, epochs from the start."""
    small = RECIPES["published-small"].config(sigma=0.5)
    assert jacobian_weight(small, epoch=0, step=-1) == 0.0
    assert jacobian_weight(small, epoch=89, step=30_000) == 0.5
    assert jacobian_weight(small, epoch=90, step=30_001) == 0.0
    large = RECIPES["published-imagenet"].config(sigma=0.5)
    assert jacobian_weight(large, epoch=0, step=-510_000) == 0.03
    assert jacobian_weight(large, epoch=99, step=49_999) == 2.5
    assert jacobian_weight(large, epoch=99, step=100_000) == pytest.approx(2.7)


def test_sgd_takes_nesterov_steps_and_spares_biases():
    """By hand: with momentum m the first step is (1 + m) lr g, g with the decay of weights."""
    model = nn.Linear(1, 1)
    config = TrainConfig(
        sigma=0.5, optimizer="sgd", learning_rate=0.1, momentum=0.8, weight_decay=0.5
    )
    optimizer = make_optimizer(model, config)
    before = [float(p.detach()) for p in model.parameters()]
    model(torch.tensor([[2.0]])).sum().backward()
    optimizer.step()
    weight, bias = (float(p.detach()) for p in model.parameters())
    assert weight == pytest.approx(before[0] - 0.1 * 1.8 * (2.0 + 0.5 * before[0]))
    assert bias == pytest.approx(before[1] - 0.1 * 1.8)


def test_adam_without_decay_moves_by_the_rate():
    model = ScalarModel()
    optimizer = make_optimizer(model, TrainConfig(sigma=0.5, learning_rate=0.1, weight_decay=0))
    model.gain.grad = torch.tensor(7.0)
    optimizer.step()
    assert float(model.gain.detach()) == pytest.approx(0.9)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16", "jacobian_weight": 0.5, "jacobian_frequency": 1.0},
        {
            "optimizer": "sgd",
            "objective": "equilibrium",
            "solver": "broyden:5",
            "gradient": {"method": "implicit", "solver": "broyden:5"},
            "jacobian_weight": 0.5,
            "jacobian_frequency": 1.0,
            "solver_jitter": [-2, 1],
            "pretrain_updates": 2,
            "clip_norm": None,
        },
    ],
)
def test_every_part_of_a_recipe_runs_and_resumes(tmp_path, changes):
    data = few_digits(load_data("digits", split="train"), 64)
    base = {"epochs": 2, "batch_size": 16, "validation_copies": 1, "card_copies": 1}
    config = TrainConfig.from_dict({**base, **changes, "sigma": 0.5})
    settings = {"channels": (8, 8), "expansion": 1, "groups": 1, "dropout": 0.2}
    result = train("mdeq-digits", data, out=tmp_path, config=config, model_settings=settings)
    assert all(p.dtype == torch.float32 for p in result.model.parameters())
    assert "jacobian" in result.log[-1]
    assert result.card["model"]["settings"] == settings | {"channels": [8, 8]}
    assert result.card["spectral_radius_estimate"]["median"] > 0.0
    again = train("mdeq-digits", data, out=tmp_path, config=config, model_settings=settings)
    assert again.card == result.card


def test_model_settings_need_a_name(tmp_path):
    with pytest.raises(ConfigurationError, match="name of an architecture"):
        train(
            ScalarModel(),
            few_digits(load_data("digits", split="train"), 64),
            out=tmp_path / "run",
            config=TrainConfig(sigma=0.5),
            model_settings={"dropout": 0.0},
        )
