"""Loss terms against closed forms: z_k = u (1 - a^k) / (1 - a) and z* = u / (1 - a)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from deqcert.models import GradientSpec
from deqcert.training import ShortSolveSpec, TrainConfig
from deqcert.training.losses import (
    Batch,
    objective,
    relative_distance,
    short_solve_loss,
    unrolled_loss,
)
from tests.training.small import ScalarModel

SLOPE = 0.5
PIXELS = [0.2, 0.9, 0.4]
OTHER = [0.5, 0.1, 0.6]
TARGETS = [[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]]


def images(pixels: list[float]) -> Tensor:
    return torch.tensor(pixels).view(-1, 1, 1, 1)


def batch(**changes: object) -> Batch:
    parts: dict = {"images": images(PIXELS), "targets": torch.tensor(TARGETS)}
    return Batch(**{**parts, **changes})


def config(**changes: object) -> TrainConfig:
    base: dict = {
        "sigma": 0.1,
        "solver": "picard:60",
        "gradient": GradientSpec(method="implicit"),
        "short": ShortSolveSpec(
            steps=(1, 2),
            weights=(0.25, 0.5),
            equilibrium_weight=2.0,
            closeness_weight=3.0,
            warm_weight=0.0,
            agreement_weight=0.0,
        ),
    }
    return TrainConfig(**{**base, **changes})


def probabilities(z: float) -> list[float]:
    first = 1.0 / (1.0 + math.exp(-2.0 * z))
    return [first, 1.0 - first]


def cross_entropy(states: list[float]) -> float:
    terms = [
        -sum(t * math.log(p) for t, p in zip(target, probabilities(z), strict=True))
        for target, z in zip(TARGETS, states, strict=True)
    ]
    return sum(terms) / len(terms)


def divergence(truth: list[float], found: list[float]) -> float:
    terms = [
        sum(p * math.log(p / q) for p, q in zip(probabilities(a), probabilities(b), strict=True))
        for a, b in zip(truth, found, strict=True)
    ]
    return sum(terms) / len(terms)


def iterate(k: int) -> list[float]:
    return [u * (1 - SLOPE**k) / (1 - SLOPE) for u in PIXELS]


FIXED = [u / (1 - SLOPE) for u in PIXELS]


def test_unrolled_loss_is_the_cross_entropy_after_the_steps():
    found = unrolled_loss(ScalarModel(SLOPE), batch(), config(pretrain_steps=3))
    assert float(found.loss.detach()) == pytest.approx(cross_entropy(iterate(3)), rel=1e-5)


def test_equilibrium_loss_is_the_cross_entropy_at_the_fixed_point():
    found = objective(ScalarModel(SLOPE), batch(), config(objective="equilibrium"))
    assert float(found.loss.detach()) == pytest.approx(cross_entropy(FIXED), rel=1e-5)


def test_short_solve_loss_averages_entropies_and_adds_the_closeness():
    found = short_solve_loss(ScalarModel(SLOPE), batch(), config())
    entropies = (
        0.25 * cross_entropy(iterate(1))
        + 0.5 * cross_entropy(iterate(2))
        + 2 * cross_entropy(FIXED)
    )
    # ||z_2 - z*|| / ||z*|| = a^2 in every row.
    expected = entropies / 2.75 + 3.0 * SLOPE**4
    assert float(found.loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(found.parts["closeness"]) == pytest.approx(SLOPE**4, rel=1e-5)


def test_warm_terms_start_from_the_equilibrium_of_the_other_copy():
    short = ShortSolveSpec(
        steps=(4,), weights=(0.0,), closeness_weight=0.0, warm_weight=2.0, agreement_weight=0.0
    )
    # 4 Picard steps from z* towards the other copy's equilibrium, then 1 step of its own.
    start = [
        v / (1 - SLOPE) + SLOPE**4 * (z - v / (1 - SLOPE))
        for v, z in zip(OTHER, FIXED, strict=True)
    ]
    warm = [SLOPE * s + u for s, u in zip(start, PIXELS, strict=True)]
    distance = sum(((w - z) / z) ** 2 for w, z in zip(warm, FIXED, strict=True)) / 3
    found = short_solve_loss(ScalarModel(SLOPE), batch(other=images(OTHER)), config(short=short))
    assert float(found.parts["warm"]) == pytest.approx(cross_entropy(warm), rel=1e-5)
    assert float(found.parts["warm closeness"]) == pytest.approx(distance, rel=1e-4)
    expected = (cross_entropy(FIXED) + 2 * cross_entropy(warm)) / 3 + 2 * distance
    assert float(found.loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_agreement_is_the_divergence_from_the_equilibrium():
    short = ShortSolveSpec(
        steps=(1, 2),
        weights=(1.0, 1.0),
        closeness_weight=0.0,
        warm_weight=0.0,
        agreement_weight=5.0,
    )
    found = short_solve_loss(ScalarModel(SLOPE), batch(), config(short=short))
    total = divergence(FIXED, iterate(1)) + divergence(FIXED, iterate(2))
    assert float(found.parts["disagreement"]) == pytest.approx(total, rel=1e-4)
    entropies = sum(cross_entropy(z) for z in (iterate(1), iterate(2), FIXED)) / 3
    assert float(found.loss.detach()) == pytest.approx(entropies + 5 * total, rel=1e-5)


def test_closeness_moves_the_short_state_and_not_the_equilibrium():
    """With z* given, d/da of mean (z_1 - z*)^2 / z*^2 at z_1 = u is 0; with z* free it is 2a."""
    short = ShortSolveSpec(
        steps=(1,),
        weights=(0.0,),
        equilibrium_weight=1e-9,
        closeness_weight=1.0,
        warm_weight=0.0,
        agreement_weight=0.0,
    )
    model = ScalarModel(SLOPE)
    flat = torch.full((3, 2), 0.5)
    loss = short_solve_loss(model, batch(targets=flat), config(short=short)).loss
    entropy = objective(model, batch(targets=flat), config(objective="equilibrium")).loss
    (slope,) = torch.autograd.grad(loss - entropy, [model.slope])
    assert float(slope) == pytest.approx(0.0, abs=1e-5)


def test_jacobian_penalty_is_added_where_the_batch_asks():
    """J = a, so ||v'J||^2 / size is a^2 times the mean square of the probes."""
    settings = config(objective="equilibrium")
    model = ScalarModel(SLOPE)
    without = objective(model, batch(), settings)
    probes = torch.Generator().manual_seed(3)
    drawn = torch.randn(2, 3, 1, generator=torch.Generator().manual_seed(3))
    found = objective(model, batch(probes=probes, jacobian_weight=10.0), settings)
    expected = 10.0 * SLOPE**2 * float(drawn.square().mean())
    assert "jacobian" not in without.parts
    gained = float(found.loss.detach()) - float(without.loss.detach())
    assert gained == pytest.approx(expected, rel=1e-4)


def test_relative_distance_joins_resolutions_before_dividing():
    state = (torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0]]))
    target = (torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0]]))
    assert float(relative_distance(state, target)) == pytest.approx((4 + 1) / (9 + 1))


def test_label_smoothing_spreads_the_targets():
    found = unrolled_loss(
        ScalarModel(SLOPE), batch(), config(pretrain_steps=1, label_smoothing=0.2)
    )
    half = [-0.5 * sum(math.log(p) for p in probabilities(z)) for z in iterate(1)]
    expected = 0.8 * cross_entropy(iterate(1)) + 0.2 * sum(half) / 3
    assert float(found.loss.detach()) == pytest.approx(expected, rel=1e-5)
