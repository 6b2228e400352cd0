"""The cell of an MDEQ: a residual block per resolution, then fusion of all with all (PAPER 4)."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from deqcert.models.layers import WeightNormConv2d
from deqcert.models.mdeq_config import MDEQConfig
from deqcert.models.norms import GroupNorm


class MDEQCell(nn.Module):
    """One application of f to a state of n resolutions."""

    def __init__(self, config: MDEQConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(count, expansion=config.expansion, groups=config.groups)
            for count in config.channels
        )
        # As in the public code, a single resolution has nothing to fuse: its block is all of f.
        count = len(config.channels) if len(config.channels) > 1 else 0
        self.fusions = nn.ModuleList(
            Fusion(config.channels, into, groups=config.groups, affine=config.fusion_affine)
            for into in range(count)
        )

    def forward(
        self,
        state: tuple[Tensor, ...],  # each (batch, c_i, H_i, W_i), or one row for all
        top: Tensor,  # (batch, c_0, H_0, W_0), added at the highest resolution alone
        masks: tuple[Tensor, ...] | None,  # each (batch, c_i, 1, 1)
    ) -> tuple[Tensor, ...]:  # each (batch, c_i, H_i, W_i)
        """Return f(state); of a state of one row, that of every row, by broadcasting."""
        blocks = []
        for i, block in enumerate(self.blocks):
            mask = None if masks is None else masks[i]
            blocks.append(block(state[i], top if i == 0 else None, mask))
        return tuple(fusion(blocks) for fusion in self.fusions) or tuple(blocks)


class ResidualBlock(nn.Module):
    """Two weight-normed convolutions with dropout, injection and a shortcut."""

    def __init__(self, channels: int, *, expansion: int, groups: int) -> None:
        super().__init__()
        inner = expansion * channels
        self.conv1 = WeightNormConv2d(channels, inner, 3)
        self.norm1 = GroupNorm(groups, inner)
        self.conv2 = WeightNormConv2d(inner, channels, 3)
        self.norm2 = GroupNorm(groups, channels)
        self.norm3 = GroupNorm(groups, channels)

    def forward(
        self,
        z: Tensor,  # (batch, c, H, W)
        injection: Tensor | None,  # (batch, c, H, W)
        mask: Tensor | None,  # (batch, c, 1, 1)
    ) -> Tensor:  # (batch, c, H, W)
        """Return the block's output at one resolution."""
        out = self.conv2(self.norm1(self.conv1(z), relu=True))
        if mask is not None:
            out = out * mask
        if injection is not None:
            out = out + injection
        return self.norm3(F.relu(self.norm2(out) + z))


class Fusion(nn.Module):
    """Everything that flows into one resolution: itself, all higher ones, all lower ones."""

    def __init__(
        self, channels: tuple[int, ...], into: int, *, groups: int, affine: bool = False
    ) -> None:
        super().__init__()
        self.into = into
        self.paths = nn.ModuleList(
            _path(channels, source, into, groups) for source in range(len(channels))
        )
        self.conv = WeightNormConv2d(channels[into], channels[into], 1)
        self.norm = GroupNorm(max(1, groups // 2), channels[into], affine=affine)

    def forward(self, blocks: list[Tensor]) -> Tensor:  # each (batch, c_i, H_i, W_i)
        """Return the next state at this resolution."""
        total = blocks[self.into]
        size = total.shape[-2:]
        for source, path in enumerate(self.paths):
            if source < self.into:
                total = total + path(blocks[source])
            elif source > self.into:
                total = total + F.interpolate(path(blocks[source]), size=size, mode="nearest")
        return self.norm(self.conv(F.relu(total)))


def _path(channels: tuple[int, ...], source: int, into: int, groups: int) -> nn.Module:
    """Return the layers between two resolutions; upsampling itself is left to the caller."""
    if source == into:
        return nn.Identity()
    if source > into:
        return nn.Sequential(
            nn.Conv2d(channels[source], channels[into], 1, bias=False),
            GroupNorm(groups, channels[into]),
        )
    layers: list[nn.Module] = []
    for step in range(source + 1, into + 1):
        out = channels[into] if step == into else channels[source]
        layers.append(nn.Conv2d(channels[source], out, 3, stride=2, padding=1, bias=False))
        layers.append(GroupNorm(groups, out))
        if step != into:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
