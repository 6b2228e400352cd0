"""Both ends of an MDEQ: the stem that makes the injection, and the heads that classify."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from deqcert.models.layers import ConvBatchNorm, Logits
from deqcert.models.mdeq_config import MDEQConfig


class Stem(nn.Module):
    """Standardise, then two or three convolutions to the injection of the highest resolution."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: MDEQConfig) -> None:
        super().__init__()
        colours, width = config.input_shape[0], config.channels[0]
        # Persistent: they belong to the classifier, so they belong into its digest.
        self.register_buffer("mean", torch.tensor(config.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(1, -1, 1, 1))
        first, second = config.stem_strides
        layers = [
            ConvBatchNorm(colours, width, 3, stride=first),
            nn.ReLU(),
            ConvBatchNorm(width, width, 3, stride=second),
            nn.ReLU(),
        ]
        if config.has_injection_layer:
            layers += [ConvBatchNorm(width, width, 1), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:  # (batch, C, H, W) -> (batch, c_0, H_0, W_0)
        """Return the injection of images in [0, 1]."""
        return self.layers((x - self.mean) / self.std)


def make_head(config: MDEQConfig) -> nn.Module:
    """Return the head `config` asks for: state tuple -> logits."""
    return BottleneckHead(config) if config.head == "bottleneck" else LinearHead(config)


class BottleneckHead(nn.Module):
    """The published head: widen each resolution, gather from high to low, pool, classify."""

    def __init__(self, config: MDEQConfig) -> None:
        super().__init__()
        wide = [count * config.head_expansion for count in config.head_channels]
        self.bottlenecks = nn.ModuleList(
            Bottleneck(c, h, h * config.head_expansion)
            for c, h in zip(config.channels, config.head_channels, strict=True)
        )
        self.downs = nn.ModuleList(
            ConvBatchNorm(wide[i], wide[i + 1], 3, stride=2, bias=True)
            for i in range(len(wide) - 1)
        )
        self.final = ConvBatchNorm(wide[-1], config.final_width, 1, bias=True)
        self.linear = Logits(config.final_width, config.num_classes)

    def forward(self, state: tuple[Tensor, ...]) -> Tensor:  # (batch, classes)
        """Return the logits."""
        y = self.bottlenecks[0](state[0])
        for i, down in enumerate(self.downs, start=1):
            y = self.bottlenecks[i](state[i]) + F.relu(down(y))
        return self.linear(F.relu(self.final(y)).mean(dim=(2, 3)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolution beside a 1x1 shortcut; only the shortcut's BatchNorm is affine."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = ConvBatchNorm(in_channels, channels, 1, affine=False)
        self.conv = ConvBatchNorm(channels, channels, 3, affine=False)
        self.expand = ConvBatchNorm(channels, out_channels, 1, affine=False)
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else ConvBatchNorm(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:  # (batch, in, H, W) -> (batch, out, H, W)
        """Return the widened features."""
        out = self.expand(F.relu(self.conv(F.relu(self.reduce(x)))))
        return F.relu(out + self.shortcut(x))


class LinearHead(nn.Module):
    """One linear layer on every resolution, pooled or flattened: cheap, for small images."""

    def __init__(self, config: MDEQConfig) -> None:
        super().__init__()
        self.pool = config.head == "pool"
        width = sum(config.channels) if self.pool else config.state_size
        self.linear = Logits(width, config.num_classes)

    def forward(self, state: tuple[Tensor, ...]) -> Tensor:  # (batch, classes)
        """Return the logits."""
        parts = [z.mean(dim=(2, 3)) if self.pool else z.flatten(1) for z in state]
        return self.linear(torch.cat(parts, dim=1))
