"""An MDEQ's stem and head for inference on a GPU: convolutions that take along what follows them.

The same functions as `Stem` and `BottleneckHead` up to rounding. In bfloat16, as on a CPU, pixels
are standardised and features pooled in float32, and a sum is rounded once.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from deqcert.models.fast_part import FastPart, last
from deqcert.models.gpu_conv import GpuConv
from deqcert.models.mdeq_ends import Bottleneck, BottleneckHead, Stem


def gpu_end(end: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Return the fast form of a folded stem or head for a GPU, or the part where there is none.

    Args:
        end: The part, its convolutions folded, in float32.
        dtype: Precision it will be evaluated in.
        device: Where it will be evaluated.
    """
    form = {Stem: GpuStem, BottleneckHead: GpuHead}.get(type(end))
    if form is None or dtype not in (torch.float32, torch.bfloat16):
        return end
    return form(end, dtype, torch.empty(0, device=device).device)


class GpuStem(FastPart):
    """`Stem`, its images as they come."""

    def __init__(self, plain: Stem, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(plain, dtype, device)
        convs = [part for part in plain.layers if isinstance(part, nn.Conv2d)]
        self._convs = [GpuConv(conv, dtype, device) for conv in convs]
        self._mean, self._std = (x.detach().float().to(device) for x in (plain.mean, plain.std))

    def forward(self, x: Tensor) -> Tensor:  # (batch, C, H, W) -> (batch, c_0, H_0, W_0)
        """Return the injection of images in [0, 1]."""
        if not self.serves(x):
            return self.plain(x)
        y = last((x.float() - self._mean).div_(self._std).to(x.dtype))
        for conv in self._convs:
            y = conv(y, relu=True)
        return y


class GpuHead(FastPart):
    """`BottleneckHead`."""

    def __init__(self, plain: BottleneckHead, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(plain, dtype, device)
        blocks = [cast(Bottleneck, block) for block in plain.bottlenecks]
        self._blocks = [_Bottleneck(block, dtype, device) for block in blocks]
        self._downs = [GpuConv(part, dtype, device) for part in plain.downs]
        self._final = GpuConv(plain.final, dtype, device)

    def forward(self, state: tuple[Tensor, ...]) -> Tensor:  # (batch, classes)
        """Return the logits."""
        if not self.serves(*state):
            return self.plain(state)
        first, *rest = map(last, state)
        y = self._blocks[0](first, None)
        for down, block, z in zip(self._downs, self._blocks[1:], rest, strict=True):
            y = block(z, down(y, relu=True))
        features = self._final(y, relu=True).mean(dim=(2, 3), dtype=torch.float32)
        return cast(BottleneckHead, self.plain).linear(features)


class _Bottleneck:
    """`Bottleneck`, and the sum with what comes from the resolution above."""

    def __init__(self, block: Bottleneck, dtype: torch.dtype, device: torch.device) -> None:
        self.reduce = GpuConv(block.reduce, dtype, device)
        self.conv = GpuConv(block.conv, dtype, device)
        self.expand = GpuConv(block.expand, dtype, device)
        self.shortcut = None
        if not isinstance(block.shortcut, nn.Identity):
            self.shortcut = GpuConv(block.shortcut, dtype, device)

    def __call__(self, x: Tensor, above: Tensor | None) -> Tensor:
        """Return relu(bottleneck + shortcut) + above, shapes (rows, C, H, W)."""
        inner = self.conv(self.reduce(x, relu=True), relu=True)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return self.expand(inner, shortcut=shortcut, relu=True, other=above)
