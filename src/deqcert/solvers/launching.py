"""What launching Triton's kernels takes, whatever they compute."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

OPTIONS = {"enable_fp_fusion": False}
"""A product and a sum are two operations, as in Triton's interpreter, whatever Triton's default."""
ALIGNED = 16
"""Machine code depends on whether an address is a multiple of it, and with it the order of sums."""


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which kernels are launched on this device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def power(number: int) -> int:
    """Return the least power of two that is no smaller: tiles have such sizes."""
    return 1 << (number - 1).bit_length()
