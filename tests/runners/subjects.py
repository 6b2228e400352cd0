"""A model for runs: quick, deterministic, and undecided enough to give every kind of record."""

from __future__ import annotations

import torch
from torch import Tensor

from deqcert.models import EquilibriumModel


class TemplateDEQ(EquilibriumModel):
    """Ten classes by fixed random templates of the equilibrium of a contractive linear cell."""

    def __init__(self) -> None:
        super().__init__(num_classes=10, input_shape=(1, 8, 8), solver="picard:4")
        generator = torch.Generator().manual_seed(0)
        self.mix = torch.nn.Parameter(torch.randn(64, 64, generator=generator) / 24)
        self.head = torch.nn.Parameter(torch.randn(64, 10, generator=generator))

    def inject(self, x: Tensor) -> Tensor:  # (batch, 64)
        return x.flatten(1) - 0.3

    def initial_state(self, injection: Tensor) -> Tensor:
        return torch.zeros_like(injection)

    def cell(self, state: Tensor, injection: Tensor) -> Tensor:
        return torch.tanh(state @ self.mix) + injection

    def classify(self, state: Tensor) -> Tensor:
        return state @ self.head


def small_model() -> TemplateDEQ:
    """Return the model, the same in every process."""
    return TemplateDEQ()
