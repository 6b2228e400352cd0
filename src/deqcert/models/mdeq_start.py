"""A start z0 that is learnt: a function of the noisy image, for solves of few steps."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from deqcert.models.mdeq_config import MDEQConfig


class LearnedStart(nn.Module):
    """One 1x1 convolution per resolution, of the injection averaged down to its size.

    Linear, because the first application of f is not. It is drawn near the published start, zero,
    but not at it, where the cell's ReLUs pass no gradient back. Of a unique fixed point it changes
    nothing; what it learns comes from losses on early iterates.
    """

    def __init__(self, config: MDEQConfig) -> None:
        super().__init__()
        self.sizes = [(height, width) for _, height, width in config.state_shapes]
        self.convs = nn.ModuleList(
            nn.Conv2d(config.channels[0], count, 1) for count in config.channels
        )

    def forward(self, top: Tensor) -> tuple[Tensor, ...]:  # (batch, c_0, H_0, W_0)
        """Return z0, each part of shape (batch, c_i, H_i, W_i)."""
        return tuple(
            conv(F.adaptive_avg_pool2d(top, size))
            for conv, size in zip(self.convs, self.sizes, strict=True)
        )
