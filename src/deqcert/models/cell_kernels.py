"""What lies between the convolutions of a fast cell: one interface, kernels of several devices.

`cpu_kernels` (numba) and `gpu_kernels` (Triton) compute the same formulas. All images are tensors
(rows, C, H, W), channels last in memory, in the cell's precision; arithmetic is in float32, and a
result is rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


@dataclass(frozen=True)
class Norm:
    """What a kernel needs of a GroupNorm, kept in float32 whatever the precision.

    Attributes:
        affine: Weight and bias (2, C), or of S norms alike (S, 2, C), as the kernels take them.
        groups: Divides C.
        eps: Added to the variance.
    """

    affine: Any
    groups: int
    eps: float


class Conv(Protocol):
    """A convolution of images channels last.

    Attributes:
        channels: Those of the result.
    """

    channels: int

    def __call__(self, x: Tensor) -> Tensor:  # (rows, in, H, W) -> (rows, out, H', W')
        """Return the convolution of `x`, channels last, in fresh memory."""
        ...


class CellKernels(Protocol):
    """The kernels of one device.

    Attributes:
        device: Where images and weights lie.
    """

    device: torch.device

    def constant(self, values: Tensor) -> Any:
        """Return float32 numbers as the kernels take them."""
        ...

    def over_rows(self, work: Callable[[int, int], None], rows: int, most: int) -> None:
        """Call ``work(low, high)`` until all rows are done, `most` at once if that is faster."""
        ...

    def parts(self, rows: int, most: int) -> list[slice]:
        """Return the parts that a block takes so many rows in."""
        ...

    def conv(self, conv: nn.Module, dtype: torch.dtype) -> Conv:
        """Return the fast form of a convolution, for images of this precision."""
        ...

    def norm(self, x: Tensor, out: Tensor, norm: Norm) -> None:
        """Write GroupNorm(x) to `out`, other memory of the same shape."""
        ...

    def norm_relu(self, x: Tensor, norm: Norm) -> None:
        """Replace `x` by relu(GroupNorm(x))."""
        ...

    def end_block(
        self, x: Tensor, injection: Tensor | None, z: Tensor, first: Norm, second: Norm
    ) -> None:
        """Replace `x` by second(relu(first(x + injection) + z)), norms of as many groups."""
        ...

    def fuse(self, base: Tensor, paths: Sequence[Tensor], norms: Norm, out: Tensor) -> None:
        """Write relu(base + sum of the norms of all paths, enlarged to the size of base)."""
        ...


def norm_of(kernels: CellKernels, norm: nn.Module) -> Norm:
    """Return a GroupNorm as these kernels take it."""
    assert isinstance(norm, nn.GroupNorm)
    return Norm(kernels.constant(_affine(norm)), norm.num_groups, norm.eps)


def norms_of(kernels: CellKernels, norms: Sequence[nn.Module]) -> Norm:
    """Return several GroupNorms that differ in weight and bias alone."""
    first = norms[0]
    assert isinstance(first, nn.GroupNorm)
    affine = torch.stack([_affine(norm) for norm in norms])
    return Norm(kernels.constant(affine), first.num_groups, first.eps)


def _affine(norm: nn.Module) -> Tensor:  # (2, C) float32
    assert isinstance(norm, nn.GroupNorm)
    one, zero = torch.ones(norm.num_channels), torch.zeros(norm.num_channels)
    weight = one if norm.weight is None else norm.weight.detach().float().cpu()
    bias = zero if norm.bias is None else norm.bias.detach().float().cpu()
    return torch.stack([weight, bias])


def nearest(count: int, wanted: int, device: torch.device) -> Tensor:  # (wanted,) int64
    """Return which of `count` pixels stands at each of `wanted`, by nearest neighbours."""
    # PyTorch's own rounding, by asking it.
    places = torch.arange(count, dtype=torch.float32, device=device)[None, None]
    return F.interpolate(places, size=wanted, mode="nearest")[0, 0].long()
