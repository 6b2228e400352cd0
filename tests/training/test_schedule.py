"""Learning rate and weight average against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deqcert.training.config import TrainConfig
from deqcert.training.schedule import learning_rate, update_average


def test_rate_rises_then_follows_the_cosine_to_its_final_share():
    config = TrainConfig(sigma=0.5, learning_rate=0.8, warmup_steps=4, final_share=0.25)
    assert learning_rate(config, 0, 1000) == pytest.approx(0.8 / 4)
    assert learning_rate(config, 500, 1000) == pytest.approx(0.8 * (0.25 + 0.75 / 2))
    assert learning_rate(config, 1000, 1000) == pytest.approx(0.8 * 0.25)
    rates = [learning_rate(config, step, 1000) for step in range(4, 1000)]
    assert rates == sorted(rates, reverse=True)


def test_no_warm_up_starts_at_the_peak():
    config = TrainConfig(sigma=0.5, learning_rate=0.8, warmup_steps=0)
    assert learning_rate(config, 0, 10) == pytest.approx(0.8)


def test_average_moves_parameters_and_copies_statistics():
    average, model = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    assert model.running_mean is not None
    assert average.running_mean is not None
    nn.init.constant_(model.weight, 3.0)
    model.running_mean.fill_(7.0)
    update_average(average, model, decay=0.9, step=10_000)
    torch.testing.assert_close(average.weight.detach(), torch.tensor([0.9 * 1.0 + 0.1 * 3.0]))
    assert float(average.running_mean) == 7.0


def test_early_steps_forget_the_start_sooner():
    average, model = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(average.weight, 0.0)
    nn.init.constant_(model.weight, 1.0)
    update_average(average, model, decay=0.999, step=1)
    assert float(average.weight.detach()) == pytest.approx(1 - 2 / 11)


def test_decay_0_returns_the_weights_themselves():
    average, model = nn.Linear(2, 2), nn.Linear(2, 2)
    update_average(average, model, decay=0.0, step=1)
    assert torch.equal(average.weight, model.weight)
