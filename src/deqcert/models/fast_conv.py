"""Convolutions of fast parts on a CPU: PyTorch's, channels last, or Winograd's where faster."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from deqcert.models.bfloat16_products import product_type
from deqcert.models.fast_part import last
from deqcert.models.winograd import winograd

_NARROW = 8
"""Output channels up to which two pixels share one vector register of 16 numbers."""


class FastConv:
    """A convolution, its weight in the memory order the input comes in.

    Args:
        conv: The convolution, in float32.
        dtype: float32 or bfloat16.
    """

    def __init__(self, conv: nn.Module, dtype: torch.dtype) -> None:
        assert isinstance(conv, nn.Conv2d)
        self.computed_in = product_type(dtype)
        self.weight = last(conv.weight.detach()).to(dtype, copy=True).to(self.computed_in)
        self.bias = None
        if conv.bias is not None:
            self.bias = conv.bias.detach().to(dtype, copy=True).to(self.computed_in)
        self.stride, self.padding = conv.stride, conv.padding
        self.channels = len(self.weight)
        self.pairs = self.pair_bias = None
        if conv.kernel_size == (3, 3) and self.stride == (1, 1) and self.channels <= _NARROW:
            self.pairs = _pair(self.weight)
            self.pair_bias = None if self.bias is None else self.bias.repeat(2)
        # Not with a bias: another pass over the result takes what stems and heads would gain.
        self.winograd = winograd(conv, dtype) if self.bias is None else None

    def __call__(self, x: Tensor) -> Tensor:  # (rows, in, H, W) -> (rows, out, H', W')
        """Return the convolution of `x`, both channels last."""
        if self.winograd is not None and self.winograd.serves(x):
            return self.winograd(x)
        if self.pairs is None or x.shape[3] % 2:
            return self._convolved(x, self.weight, self.bias, self.stride)
        y = self._convolved(x, self.pairs, self.pair_bias, (1, 2))
        rows, _, height, width = x.shape
        # In memory the two pixels of a pair lie beside each other as they should.
        pixels = y.permute(0, 2, 3, 1).view(rows, height, width, self.channels)
        return pixels.permute(0, 3, 1, 2)

    def _convolved(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...]
    ) -> Tensor:  # (rows, in, H, W) -> (rows, out, H', W'), channels last
        factor = x.to(self.computed_in)
        return last(F.conv2d(factor, weight, bias, stride, self.padding)).to(x.dtype)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the result for an image of this size."""
        assert not isinstance(self.padding, str)
        (down, across), (top, left) = self.stride, self.padding
        tall, wide = self.weight.shape[2:]
        return (height + 2 * top - tall) // down + 1, (width + 2 * left - wide) // across + 1


def _pair(weight: Tensor) -> Tensor:  # (out, in, 3, 3) -> (2 * out, in, 3, 4)
    """Return the weight that computes two neighbouring pixels as channels of one, at stride 2.

    A third more arithmetic, of which zeros, but twice as many channels to fill registers with.
    """
    out, count, _, _ = weight.shape
    pairs = weight.new_zeros(2, out, count, 3, 4)
    pairs[0, :, :, :, :3] = weight
    pairs[1, :, :, :, 1:] = weight
    return last(pairs.flatten(0, 1))
