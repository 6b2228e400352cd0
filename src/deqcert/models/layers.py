"""Layers that are trained in one form and folded into a cheaper, equal one for inference."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torch.nn.utils.fusion import fuse_conv_bn_weights


class WeightNormConv2d(nn.Module):
    """A bias-free convolution with weight g * v / ||v||, one norm per output channel.

    `weight_g` and `weight_v` are ordinary parameters and the weight is computed where it is used:
    no hooks and no derived tensor, so copying, pickling and moving between devices just work.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        plain = nn.Conv2d(in_channels, out_channels, kernel_size)
        self.padding = kernel_size // 2
        self.weight_v = nn.Parameter(plain.weight.detach().clone())  # (out, in, k, k)
        self.weight_g = nn.Parameter(_row_norm(self.weight_v.detach()))  # (out, 1, 1, 1)

    @property
    def weight(self) -> Tensor:  # (out, in, k, k)
        """The normalised weight."""
        return self.weight_v * (self.weight_g / _row_norm(self.weight_v))

    def forward(self, x: Tensor) -> Tensor:  # (batch, in, H, W) -> (batch, out, H, W)
        """Convolve."""
        return F.conv2d(x, self.weight, padding=self.padding)

    def fold(self) -> nn.Conv2d:
        """Return the plain convolution with the same weight, computed in float64."""
        v = self.weight_v.detach().double()
        weight = v * (self.weight_g.detach().double() / _row_norm(v))
        return _plain_conv(weight, None, like=self.weight_v, padding=self.padding)


class ConvBatchNorm(nn.Module):
    """Convolution, then BatchNorm; folds into one convolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd kernel size; padding keeps the image size at stride 1.
        stride: Stride.
        bias: Whether the convolution has one too (redundant, but the public model has it).
        affine: Whether BatchNorm has a learned scale and shift.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        bias: bool = False,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            bias=bias,
        )
        self.norm = nn.BatchNorm2d(out_channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:  # (batch, in, H, W) -> (batch, out, H', W')
        """Convolve and normalise."""
        return self.norm(self.conv(x))

    def fold(self) -> nn.Conv2d:
        """Return the one convolution that does both in eval mode."""
        return fold_batch_norm(self.conv, self.norm)


class Logits(nn.Linear):
    """The layer that ends in the logits; an inference copy keeps it in float32 at least.

    In bfloat16 two of ten logits are equal, or nearer than their rounding, in a percent of draws.
    """

    def forward(self, input: Tensor) -> Tensor:  # (batch, features) -> (batch, classes)
        """Return the logits, in the layer's own precision."""
        return super().forward(input.to(self.weight.dtype))


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return the convolution equal to `norm(conv(x))` in eval mode, computed in float64.

    Needs a BatchNorm with running statistics and a zero-padded convolution.
    """
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None, "callers check"
    assert variance is not None, "comes with the mean"
    weight, bias = fuse_conv_bn_weights(
        conv.weight.detach().double(),
        None if conv.bias is None else conv.bias.detach().double(),
        mean.double(),
        variance.double(),
        norm.eps,
        None if norm.weight is None else norm.weight.detach().double(),
        None if norm.bias is None else norm.bias.detach().double(),
    )
    return _plain_conv(
        weight,
        bias,
        like=conv.weight,
        padding=conv.padding,
        stride=conv.stride,
        dilation=conv.dilation,
        groups=conv.groups,
    )


def start_plain_convolutions(module: nn.Module, std: float) -> None:
    """Draw plain convolutions from N(0, std^2); weight-normed ones keep PyTorch's default.

    The public code draws into a derived tensor for the latter, which the next forward pass
    overwrites: the default is what its models were trained from (PAPER 4).
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0.0, std)
            if part.bias is not None:
                nn.init.normal_(part.bias, 0.0, std)


def _row_norm(v: Tensor) -> Tensor:  # (out, in, k, k) -> (out, 1, 1, 1)
    return torch.linalg.vector_norm(v, dim=(1, 2, 3), keepdim=True)


def _plain_conv(
    weight: Tensor,
    bias: Tensor | None,
    *,
    like: Tensor,
    padding: int | tuple[int, ...] | str,
    stride: tuple[int, ...] = (1, 1),
    dilation: tuple[int, ...] = (1, 1),
    groups: int = 1,
) -> nn.Conv2d:
    """Return a convolution holding the given float64 weights, rounded once to `like`'s type."""
    out_channels, in_per_group, *kernel = weight.shape
    # skip_init: fresh values would be overwritten, and would advance the global generator.
    conv = cast(
        nn.Conv2d,
        skip_init(
            nn.Conv2d,
            in_per_group * groups,
            out_channels,
            (kernel[0], kernel[1]),
            padding=padding if isinstance(padding, str) else _pair(padding),
            stride=_pair(stride),
            dilation=_pair(dilation),
            groups=groups,
            bias=bias is not None,
            device=like.device,
            dtype=like.dtype,
        ),
    )
    with torch.no_grad():
        conv.weight.copy_(weight)
        if bias is not None and conv.bias is not None:
            conv.bias.copy_(bias)
    return conv


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
