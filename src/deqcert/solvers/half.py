"""bfloat16 rows on the CPU by compiled kernels, where numba is there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deqcert.solvers.row_chunks import for_chunks

_ROWS = 64
"""Rows a thread takes at once."""


@lru_cache(maxsize=1)
def _kernels() -> Any:
    try:
        from deqcert.solvers import half_kernels  # loads a compiler: only where it is used
    except ImportError:  # numba is an extra
        return None
    return half_kernels


def dots(
    window: Tensor,  # shape: (P, B, W), bfloat16, CPU
    slot: int,
    out: Tensor,  # shape: (P, B), float64
) -> bool:
    """Write the products of one slot's rows with all slots'; return whether that was possible."""
    kernels = _kernels()
    if kernels is None:
        return False
    arguments = _bits(window), slot, out.numpy()
    for_chunks(lambda low, high: kernels.dots(*arguments, low, high), out.shape[1], _ROWS)
    return True


def combine(
    shares: Tensor,  # shape: (P, B), float32
    points: Sequence[Tensor],  # P of shape (B, D), bfloat16, CPU
    out: Tensor,  # shape: (B, D), bfloat16
) -> bool:
    """Write the weighted sums of matching rows; return whether that was possible."""
    kernels = _kernels()
    if kernels is None:
        return False
    arguments = shares.numpy(), tuple(map(_bits, points)), _bits(out)
    for_chunks(lambda low, high: kernels.combine(*arguments, low, high), len(out), _ROWS)
    return True


def changes(
    x: Tensor,  # shape: (B, D), bfloat16, CPU
    y: Tensor,  # shape: (B, D), bfloat16
    out: Tensor,  # shape: (2, B), float64
) -> bool:
    """Write ||y - x||^2 and ||y||^2 of matching rows; return whether that was possible."""
    kernels = _kernels()
    if kernels is None:
        return False
    arguments = _bits(x), _bits(y), out.numpy()
    for_chunks(lambda low, high: kernels.changes(*arguments, low, high), len(x), _ROWS)
    return True


def _bits(x: Tensor) -> np.ndarray:  # uint16, of the shape of x
    return x.detach().view(torch.uint16).numpy()
