"""Interval training of monotone DEQs: the least lead over an Linf box (Wei, Kolter 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from deqcert.errors import ConfigurationError
from deqcert.models import EquilibriumModel, MonDEQ
from deqcert.models.mondeq_layers import AbsoluteOperator
from deqcert.training.checks import check_integers, check_number


@dataclass(frozen=True, kw_only=True)
class IntervalSpec:
    """What the ``interval`` objective asks.

    Attributes:
        radius: Linf radius of the box, pixel units, > 0.
        weight: Share of the cross-entropy of the worst logits in the box, in [0, 1]; the rest is
            that of the image itself.
        ramp: Optimiser steps in which radius and weight grow linearly to these values, >= 0.
        steps: Unrolled steps of the boxes, >= 1; abs(W) shrinks their error by 1 - m each.

    Raises:
        ConfigurationError: A value out of range.
    """

    radius: float = 0.1
    weight: float = 0.5
    ramp: int = 2000
    steps: int = 8

    def __post_init__(self) -> None:
        check_number("interval radius", self.radius, low=0.0, open_low=True)
        check_number("interval weight", self.weight, low=0.0, high=1.0)
        check_integers(self, at_least_1=("steps",), at_least_0=("ramp",))


def with_bounds(model: EquilibriumModel) -> tuple[MonDEQ, AbsoluteOperator]:
    """Return `model` and its operator if it is one that interval training can train.

    Raises:
        ConfigurationError: Not a monotone DEQ with the ``absolute`` constraint.
    """
    if isinstance(model, MonDEQ) and isinstance(model.operator, AbsoluteOperator):
        return model, model.operator
    raise ConfigurationError(
        "the interval objective needs a monotone DEQ with constraint='absolute', such as "
        f"mondeq-ibp, but got a {type(model).__name__}"
        + (f" with constraint={model.config.constraint!r}" if isinstance(model, MonDEQ) else "")
    )


def worst_logits(
    model: EquilibriumModel,
    images: Tensor,  # (B, C, H, W)
    label: Tensor,  # (B,)
    *,
    radius: float,
    steps: int,
) -> Tensor:  # (B, classes)
    """Return minus the least lead of the label over each class in the box, 0 for the label.

    Estimates for training, without the slack that certificates need.

    Raises:
        ConfigurationError: As in `with_bounds`.
    """
    model, operator = with_bounds(model)
    low, high = (images - radius).clamp_min(0.0), (images + radius).clamp_max(1.0)
    middle, _ = model.source(0.5 * (low + high))
    std = torch.tensor(model.config.std, dtype=images.dtype, device=images.device)
    spread = 0.5 * (high - low) / std[:, None, None]
    spread = _apply(model.source.layer.weight.abs(), spread)
    w = operator.weight()
    up, down = w.clamp_min(0.0), w.clamp_max(0.0)
    lo = hi = torch.zeros_like(middle)
    for _ in range(steps):
        lo, hi = (
            torch.relu(_apply(up, lo) + _apply(down, hi) + middle - spread),
            torch.relu(_apply(up, hi) + _apply(down, lo) + middle + spread),
        )
    pool, head = model.head.pool, model.head.layer
    if pool > 1:
        lo, hi = F.avg_pool2d(lo, pool), F.avg_pool2d(hi, pool)
    apart = head.weight[label][:, None] - head.weight  # (B, classes, features)
    lo, hi = (part.flatten(1)[:, None] for part in (lo, hi))
    least = (apart.clamp_min(0.0) * lo + apart.clamp_max(0.0) * hi).sum(dim=2)
    return -(least + head.bias[label][:, None] - head.bias)


def _apply(weight: Tensor, x: Tensor) -> Tensor:
    if weight.ndim == 2:
        return x.flatten(1) @ weight.T
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2)
