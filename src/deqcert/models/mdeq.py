"""Multiscale deep equilibrium models (Bai, Koltun, Kolter 2020; PAPER 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from deqcert.models.equilibrium import EquilibriumModel
from deqcert.models.hub import HubModel
from deqcert.models.implicit import GradientSpec
from deqcert.models.layers import start_plain_convolutions
from deqcert.models.mdeq_cell import MDEQCell
from deqcert.models.mdeq_config import MDEQConfig
from deqcert.models.mdeq_ends import Stem, make_head
from deqcert.models.mdeq_start import LearnedStart
from deqcert.models.norms import order_for_training

MDEQInjection = tuple[Tensor, tuple[Tensor, ...] | None]
"""The stem's output, and the dropout masks of this solve while training."""


class MDEQ(HubModel, EquilibriumModel):
    """An MDEQ classifier: state at n resolutions, injection at the highest, z0 = 0 unless learnt.

    Args:
        config: Its configuration.
        gradient: How gradients are taken at the fixed point; None means implicit.
    """

    def __init__(self, config: MDEQConfig, *, gradient: GradientSpec | None = None) -> None:
        super().__init__(
            num_classes=config.num_classes,
            input_shape=config.input_shape,
            solver=config.solver,
            gradient=gradient,
        )
        self.config = config
        self.stem = Stem(config)
        self.f = MDEQCell(config)
        self.head = make_head(config)
        self.start = LearnedStart(config) if config.learned_start else None
        start_plain_convolutions(self, config.init_std)

    def inject(self, x: Tensor) -> MDEQInjection:  # (batch, C, H, W), pixels in [0, 1]
        """Return the stem's output and, while training with dropout, fresh masks."""
        if self.training:
            width = self.config.channels[0]
            top = order_for_training(self.stem(order_for_training(x, width)), width)
        else:
            top = self.stem(x)
        return top, self._masks(top) if self.training and self.config.dropout > 0 else None

    def initial_state(self, injection: MDEQInjection) -> tuple[Tensor, ...]:
        """Return zeros at every resolution, or what the learned start makes of the injection."""
        top, _ = injection
        if self.start is not None:
            return self.start(top)
        last = top.is_contiguous(memory_format=torch.channels_last)
        return tuple(_zeros(top, shape, last) for shape in self.config.state_shapes)

    def cell(self, state: tuple[Tensor, ...], injection: MDEQInjection) -> tuple[Tensor, ...]:
        """Return f(state, injection)."""
        return self.f(state, *injection)

    def first_step(
        self, state0: tuple[Tensor, ...], injection: MDEQInjection
    ) -> tuple[Tensor, ...]:
        """Return f(0, injection): what the blocks make of zeros is the same in every row."""
        if self.start is not None:
            return self.cell(state0, injection)
        return self.f(tuple(part[:1] for part in state0), *injection)

    def classify(self, state: tuple[Tensor, ...]) -> Tensor:  # (batch, classes)
        """Return the logits."""
        return self.head(state)

    def _masks(self, like: Tensor) -> tuple[Tensor, ...]:  # each (batch, c_i, 1, 1)
        keep = 1.0 - self.config.dropout
        return tuple(
            like.new_empty(len(like), count, 1, 1).bernoulli_(keep) / keep
            for count in self.config.channels
        )


def _zeros(top: Tensor, shape: tuple[int, int, int], last: bool) -> Tensor:  # (batch, *shape)
    """Return zeros of the type and in the memory order of `top`."""
    channels, height, width = shape
    if not last:
        return top.new_zeros(len(top), *shape)
    return top.new_zeros(len(top), height, width, channels).permute(0, 3, 1, 2)
