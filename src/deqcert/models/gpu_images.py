"""Images as the kernels of a GPU take them: all their numbers, channels innermost."""

from __future__ import annotations

from torch import Tensor

from deqcert.solvers.launching import ALIGNED


def numbers(x: Tensor) -> Tensor:  # (rows, C, H, W) channels last -> all its numbers
    """Return images as kernels read them.

    Machine code depends on whether an address is a multiple of 16, and with it the order of sums.
    """
    flat = x.permute(0, 2, 3, 1).view(-1)
    return flat if flat.data_ptr() % ALIGNED == 0 else flat.clone()


def written(x: Tensor) -> Tensor:  # (rows, C, H, W) channels last -> all its numbers
    """Return images as kernels write them; they come fresh from PyTorch's allocator."""
    flat = x.permute(0, 2, 3, 1).view(-1)
    assert flat.data_ptr() % ALIGNED == 0
    return flat
