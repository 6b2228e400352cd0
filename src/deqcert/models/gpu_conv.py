"""Convolutions of fast parts on a GPU: `triton_conv`, launched on tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deqcert.models import triton_conv
from deqcert.models.gpu_images import numbers, written
from deqcert.solvers.launching import OPTIONS, current, power

PRODUCTS = "tf32x3"
"""Products of float32 by tensor cores: each factor as two numbers of 11 bits, three products, which
keeps 22 bits. Cut to 11 bits alone (TF32) it would be another classifier (THEORY 1.1)."""


class GpuConv:
    """A convolution of images channels last, and what comes right after it.

    Args:
        conv: The convolution, in float32, of one group and without dilation.
        dtype: float32 or bfloat16.
        device: The GPU. (Triton's interpreter takes tensors of the CPU.)
    """

    def __init__(self, conv: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        assert isinstance(conv, nn.Conv2d)
        assert conv.groups == 1
        assert conv.dilation == (1, 1)
        assert not isinstance(conv.padding, str)
        (self._stride, across), (self._padding, left) = conv.stride, conv.padding
        assert (self._stride, self._padding) == (across, left)
        self._device = device
        self.channels, self._inner, self._height, self._width = conv.weight.shape
        self._places = self._height * self._width * self._inner
        self._tile = tile(self._inner, self._places, self.channels, dtype)
        weight = conv.weight.detach().permute(2, 3, 1, 0).reshape(self._places, self.channels)
        self._weight = _padded(weight, self._tile["BK"], self._tile["BN"]).to(device, dtype)
        self._bias = None
        if conv.bias is not None:
            bias = conv.bias.detach().float()[None]
            self._bias = _padded(bias, 1, self._tile["BN"])[0].to(device)

    def __call__(
        self,
        x: Tensor,  # (rows, in, H, W) channels last
        *,
        shortcut: Tensor | None = None,  # the shape of the result, channels last
        relu: bool = False,
        other: Tensor | None = None,  # likewise
    ) -> Tensor:  # (rows, out, H', W') channels last
        """Return the convolution plus shortcut, its positive part if asked, plus another image."""
        rows, _, height, width = x.shape
        high = (height + 2 * self._padding - self._height) // self._stride + 1
        wide = (width + 2 * self._padding - self._width) // self._stride + 1
        out = x.new_empty(rows, high, wide, self.channels).permute(0, 3, 1, 2)
        given = numbers(x)
        images = [given if image is None else numbers(image) for image in (shortcut, other)]
        pixels, sizes = rows * high * wide, self._tile
        grid = (-(-pixels // sizes["BM"]), -(-self.channels // sizes["BN"]))
        with current(self._device):
            triton_conv.KERNELS["conv"][grid](
                given,
                self._weight,
                self._weight if self._bias is None else self._bias,
                *images,
                written(out),
                pixels,
                self._padding,
                H=height,
                W=width,
                CI=self._inner,
                OH=high,
                OW=wide,
                CO=self.channels,
                K=self._places,
                KW=self._width,
                STRIDE=self._stride,
                BIAS=self._bias is not None,
                SHORTCUT=shortcut is not None,
                RELU=relu,
                OTHER=other is not None,
                PRODUCTS=PRODUCTS,
                **sizes,
                **OPTIONS,
            )
        return out


def tile(inner: int, places: int, channels: int, dtype: torch.dtype) -> dict[str, int]:
    """Return the sizes of a tile, and how a program computes it: they follow from the layer alone.

    Those that were fastest, or nearly, for the layers of `mdeq-small` and `mdeq-large` on an H200.

    Args:
        inner: Channels of the image.
        places: Numbers of a window.
        channels: Those of the result.
        dtype: float32 or bfloat16.
    """
    single = dtype == torch.float32
    wide = min(64 if single else 128, max(16, power(channels)))
    high, deep, warps = 128, 32 if single or wide >= 64 else 64, 4
    if single and wide == 64:
        high, deep, warps = (128, 16, 4) if inner <= 16 else (256, 32, 8)
    deep = min(deep, max(16, power(places)))
    return {"BM": high, "BN": wide, "BK": deep, "num_warps": warps, "num_stages": 3}


def _padded(matrix: Tensor, high: int, wide: int) -> Tensor:
    """Return a matrix with zeros below and beside it, up to whole tiles."""
    lines, columns = matrix.shape
    return nn.functional.pad(matrix, (0, -columns % wide, 0, -lines % high)).contiguous()
