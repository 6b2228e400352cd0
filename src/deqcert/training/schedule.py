"""Learning rate and weight average: functions of the step alone, so that resuming is exact."""

from __future__ import annotations

import math

import torch
from torch import nn

from deqcert.training.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the rate of `step` (from 0) of `steps`: linear warm-up under a cosine.

    The cosine runs over all steps, warm-up included, from the peak to `final_share` of it.
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    cosine = 0.5 * (1.0 + math.cos(math.pi * step / steps))
    return config.learning_rate * warm * (config.final_share + (1.0 - config.final_share) * cosine)


def jacobian_weight(config: TrainConfig, *, epoch: int, step: int) -> float:
    """Return the weight of the Jacobian penalty (PAPER 4).

    A weight of its own in pre-training, none from epoch `jacobian_until` on, and in between one
    that grows by so much per 50,000 steps.

    Args:
        config: The settings.
        epoch: Epoch, from 0.
        step: Optimiser steps since pre-training ended; negative before.
    """
    if step < 0:
        return config.pretrain_jacobian_weight
    if config.jacobian_until is not None and epoch >= config.jacobian_until:
        return 0.0
    return config.jacobian_weight + config.jacobian_growth * (step // 50_000)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, *, decay: float, step: int) -> None:
    """Move `average` towards `model` after step `step` (from 1).

    Early steps use (1 + step) / (10 + step) where that is smaller, so that the random start is
    forgotten. Buffers (BatchNorm's statistics, averages already) are copied.
    """
    keep = min(decay, (1.0 + step) / (10.0 + step)) if decay else 0.0
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1.0 - keep)
    for mean, value in zip(average.buffers(), model.buffers(), strict=True):
        mean.copy_(value)
