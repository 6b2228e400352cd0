"""3x3 convolutions of many channels by Winograd's algorithm: a fourth of the products."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from deqcert.models.bfloat16_products import product_type
from deqcert.models.fast_part import array, bits, last

_LEAST_CHANNELS = 32
"""With fewer, on either side, the matrix products are too narrow to be fast."""
_GROUP_BYTES = 4 << 20
"""Transformed tiles of this size are multiplied at once: they stay in a cache until the products
are transformed back."""
_GROUP_ROWS = 64


def winograd(conv: nn.Conv2d, dtype: torch.dtype) -> WinogradConv | None:
    """Return the fast form of a convolution without bias, or None where it would not be faster.

    Args:
        conv: The convolution, in float32.
        dtype: float32 or bfloat16.
    """
    usual = (
        conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.padding == (1, 1)
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )
    channels = (conv.in_channels, conv.out_channels)
    fits = min(channels) >= _LEAST_CHANNELS and not any(c % _kernels().LANES for c in channels)
    return WinogradConv(conv.weight.detach(), dtype) if usual and fits else None


class WinogradConv:
    """A 3x3 convolution with stride 1 and a border of zeros, as 36 matrix products of tiles.

    Not bitwise what a direct convolution gives: its rounding is of the same size in float32, and in
    bfloat16 five times larger (relative 1.2e-2 against 2.3e-3), as tiles and products are rounded
    between the transforms.

    Args:
        weight: float32, (K, C, 3, 3).
        dtype: Of images, tiles and products: float32 or bfloat16.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.weight = _transformed(weight).to(dtype).to(product_type(dtype))

    @staticmethod
    def serves(x: Tensor) -> bool:  # (rows, C, H, W)
        """Return whether the image is made of whole tiles."""
        return x.shape[2] % 4 == 0 and x.shape[3] % 4 == 0

    def __call__(self, x: Tensor) -> Tensor:  # (rows, C, H, W) -> (rows, K, H, W), channels last
        """Return the convolution of `x`."""
        x = last(x)
        _, channels, wanted = self.weight.shape
        rows, _, height, width = x.shape
        out = x.new_empty(rows, height, width, wanted).permute(0, 3, 1, 2)
        tiles = height * width // 16
        size = 36 * tiles * (channels + wanted) * x.element_size()
        step = max(1, min(_GROUP_ROWS, _GROUP_BYTES // size))
        for low in range(0, rows, step):
            part = x[low : low + step]
            inside = x.new_empty(36, len(part) * tiles, channels)
            _kernels().to_tiles(array(part), bits(inside))
            products = torch.bmm(inside.to(self.weight.dtype), self.weight).to(x.dtype)
            _kernels().from_tiles(bits(products), array(out[low : low + step]))
        return out


def _transformed(weight: Tensor) -> Tensor:  # (K, C, 3, 3) -> (36, C, K), float64
    """Return the weight at all pairs of points: G w G^T, computed in float64."""
    a, b = _kernels().INNER, _kernels().OUTER
    # The product of a point's differences to the other finite ones, which `to_tiles` leaves out.
    apart = {0.0: a * a * b * b} | {p: 2 * p * p * (p * p - q * q) for p, q in _pairs(a, b)}
    values = [[1 / size, p / size, p * p / size] for p, size in apart.items()]
    g = torch.tensor([*values, [0.0, 0.0, 1.0]], dtype=torch.float64)
    return torch.einsum("ai,kcij,bj->abck", g, weight.double(), g).flatten(0, 1).contiguous()


def _pairs(a: float, b: float) -> list[tuple[float, float]]:
    """Return each finite point but 0 with one of the other size, in the order of the tiles."""
    return [(a, b), (-a, b), (b, a), (-b, a)]


@lru_cache(maxsize=1)
def _kernels() -> Any:
    from deqcert.models import winograd_kernels  # loads a compiler: only where it is used

    return winograd_kernels
