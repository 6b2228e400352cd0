"""An MDEQ's stem and head for inference on a CPU: as `fused_cell`, convolutions between kernels.

The same functions as `Stem` and `BottleneckHead` up to rounding. In bfloat16, pixels are
standardised and features pooled in float32, and a sum is rounded once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from deqcert.models.fast_conv import FastConv
from deqcert.models.fast_part import FastPart, array, bits, last
from deqcert.models.mdeq_ends import Bottleneck, BottleneckHead, Stem
from deqcert.solvers.row_chunks import GRAIN, for_chunks

_CHUNK_BYTES = 8 << 20
"""Size of the widest tensor of a chunk, as for the cell."""
_CHUNK_ROWS = 512


def fused_end(end: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the fast form of a folded stem or head for a CPU, or the part where there is none.

    Args:
        end: The part, its convolutions folded, in float32.
        dtype: Precision it will be evaluated in.
    """
    form = {Stem: FusedStem, BottleneckHead: FusedHead}.get(type(end))
    if form is None or dtype not in (torch.float32, torch.bfloat16):
        return end
    try:
        _kernels()
    except ImportError:  # numba is an extra
        return end
    return form(end, dtype)


@lru_cache(maxsize=1)
def _kernels() -> Any:
    from deqcert.models import end_kernels  # loads a compiler: only where it is used

    return end_kernels


class FusedStem(FastPart):
    """`Stem`, its images as they come."""

    def __init__(self, plain: Stem, dtype: torch.dtype) -> None:
        super().__init__(plain, dtype)
        convs = [part for part in plain.layers if isinstance(part, nn.Conv2d)]
        self._convs = [FastConv(conv, dtype) for conv in convs]
        self._mean = _values(plain.mean, convs[0].in_channels)
        self._std = _values(plain.std, convs[0].in_channels)

    def forward(self, x: Tensor) -> Tensor:  # (batch, C, H, W) -> (batch, c_0, H_0, W_0)
        """Return the injection of images in [0, 1]."""
        if not self.serves(x):
            return self.plain(x)
        x = x.contiguous()
        height, width = x.shape[2:]
        widest = 0
        for conv in self._convs:
            height, width = conv.size(height, width)
            widest = max(widest, conv.channels * height * width)
        shape = (len(x), self._convs[-1].channels, height, width)
        out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)

        def work(low: int, high: int) -> None:
            y = self._standardised(x[low:high])
            for conv in self._convs[:-1]:
                y = conv(y).relu_()
            torch.clamp_min(self._convs[-1](y), 0, out=out[low:high])

        for_chunks(work, len(x), _chunk_rows(widest * x.element_size()))
        return out

    def _standardised(self, x: Tensor) -> Tensor:  # (rows, C, H, W), then channels last
        y = torch.empty_like(x, memory_format=torch.channels_last)
        lines = array(y).reshape(len(y), -1)
        _kernels().standardise(bits(x.flatten(2)), self._mean, self._std, lines)
        return y


class FusedHead(FastPart):
    """`BottleneckHead`."""

    def __init__(self, plain: BottleneckHead, dtype: torch.dtype) -> None:
        super().__init__(plain, dtype)
        self._blocks = [_Bottleneck(cast(Bottleneck, b), dtype) for b in plain.bottlenecks]
        self._downs = [FastConv(part, dtype) for part in plain.downs]
        self._final = FastConv(plain.final, dtype)

    def forward(self, state: tuple[Tensor, ...]) -> Tensor:  # (batch, classes)
        """Return the logits."""
        if not self.serves(*state):
            return self.plain(state)
        state = tuple(map(last, state))
        features = torch.empty(len(state[0]), self._final.channels)

        def work(low: int, high: int) -> None:
            self._rows([part[low:high] for part in state], features[low:high].numpy())

        pairs = zip(self._blocks, state, strict=True)
        widest = max(block.channels * part[0, 0].numel() for block, part in pairs)
        for_chunks(work, len(features), _chunk_rows(widest * state[0].element_size()))
        return cast(BottleneckHead, self.plain).linear(features)

    def _rows(self, state: list[Tensor], features: np.ndarray) -> None:
        y = self._blocks[0](state[0], None)
        for down, block, z in zip(self._downs, self._blocks[1:], state[1:], strict=True):
            y = block(z, down(y))
        rows, height, length = (y := array(self._final(y))).shape
        pixels = y.reshape(rows, height * length // self._final.channels, self._final.channels)
        _kernels().mean_relu(pixels, features)


class _Bottleneck:
    """`Bottleneck`, and the sum with what comes from the resolution above."""

    def __init__(self, block: Bottleneck, dtype: torch.dtype) -> None:
        self.reduce, self.conv = FastConv(block.reduce, dtype), FastConv(block.conv, dtype)
        self.expand = FastConv(block.expand, dtype)
        self.channels = self.expand.channels
        self.shortcut = None
        if not isinstance(block.shortcut, nn.Identity):
            self.shortcut = FastConv(block.shortcut, dtype)

    def __call__(self, x: Tensor, above: Tensor | None) -> Tensor:
        """Return relu(bottleneck + shortcut) + relu(above), shapes (rows, C, H, W)."""
        out = self.expand(self.conv(self.reduce(x).relu_()).relu_())
        shortcut = x if self.shortcut is None else self.shortcut(x)
        added = shortcut if above is None else above
        _kernels().end_bottleneck(array(out), array(shortcut), above is not None, array(added))
        return out


def _values(constant: Tensor, count: int) -> np.ndarray:  # (1, 1 or C, 1, 1) -> (C,) float32
    return constant.detach().float().flatten().expand(count).contiguous().numpy()


def _chunk_rows(bytes_per_row: int) -> int:
    return min(_CHUNK_ROWS, max(1, _CHUNK_BYTES // (bytes_per_row * GRAIN)) * GRAIN)
