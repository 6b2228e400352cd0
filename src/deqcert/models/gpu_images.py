"""Images as the kernels of a GPU take them, all numbers channels innermost; how to launch these."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

OPTIONS = {"enable_fp_fusion": False}
"""A product and a sum are two operations, as in Triton's interpreter, whatever Triton's default."""
_ALIGNED = 16


def numbers(x: Tensor) -> Tensor:  # (rows, C, H, W) channels last -> all its numbers
    """Return images as kernels read them.

    Machine code depends on whether an address is a multiple of 16, and with it the order of sums.
    """
    flat = x.permute(0, 2, 3, 1).view(-1)
    return flat if flat.data_ptr() % _ALIGNED == 0 else flat.clone()


def written(x: Tensor) -> Tensor:  # (rows, C, H, W) channels last -> all its numbers
    """Return images as kernels write them; they come fresh from PyTorch's allocator."""
    flat = x.permute(0, 2, 3, 1).view(-1)
    assert flat.data_ptr() % _ALIGNED == 0
    return flat


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which kernels are launched on this device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def power(number: int) -> int:
    """Return the least power of two that is no smaller: tiles have such sizes."""
    return 1 << (number - 1).bit_length()
