"""Models and data small enough to follow by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deqcert.data import ArrayDataset
from deqcert.models import EquilibriumModel
from deqcert.solvers import State


class ScalarModel(EquilibriumModel):
    """f(z) = slope * z + gain * x for one pixel; logits (z, -z). z_k and z* have closed forms."""

    def __init__(self, slope: float = 0.5, gain: float = 1.0) -> None:
        super().__init__(num_classes=2, input_shape=(1, 1, 1), solver="picard:30")
        self.slope = nn.Parameter(torch.tensor(slope))
        self.gain = nn.Parameter(torch.tensor(gain))

    def inject(self, x: Tensor) -> Tensor:
        return self.gain * x.flatten(1)

    def initial_state(self, injection: Any) -> State:
        return torch.zeros_like(injection)

    def cell(self, state: State, injection: Any) -> State:
        assert isinstance(state, Tensor)
        return self.slope * state + injection

    def classify(self, state: State) -> Tensor:
        assert isinstance(state, Tensor)
        return torch.cat([state, -state], dim=1)


def two_levels(count: int = 40) -> ArrayDataset:
    """One-pixel images: class 0 is white, class 1 is black."""
    labels = np.arange(count, dtype=np.int64) % 2
    return ArrayDataset(
        name="two-levels",
        split="train",
        pixels=np.where(labels == 0, 255, 0).astype(np.uint8).reshape(count, 1, 1, 1),
        labels=labels,
        levels=255,
        class_names=("white", "black"),
        licence="none",
    )


def few_digits(data: ArrayDataset, count: int) -> ArrayDataset:
    """The first `count` images of a data set."""
    return ArrayDataset(
        name=data.name,
        split=data.split,
        pixels=data.pixels[:count],
        labels=data.labels[:count],
        levels=data.levels,
        class_names=data.class_names,
        licence=data.licence,
    )
