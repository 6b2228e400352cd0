"""Compiled passes over rows of float32 and bfloat16: by numba on the CPU, by Triton on a GPU.

Each returns False where its compiler is missing, and PyTorch has to do the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deqcert.solvers.agreement import agree, is_known_gpu
from deqcert.solvers.row_chunks import for_chunks

_TYPES = (torch.float32, torch.bfloat16)
_ROWS = 512
"""Rows a thread takes at once: none is read again, and every call takes its microseconds."""


@lru_cache(maxsize=1)
def _kernels() -> Any:
    try:
        from deqcert.solvers import row_kernels  # loads a compiler: only where it is used
    except ImportError:  # numba is an extra
        return None
    return row_kernels


@lru_cache(maxsize=1)
def _gpu_kernels() -> Any:
    try:
        from deqcert.solvers import gpu_rows  # loads a compiler: only where it is used
    except ImportError:  # Triton comes with PyTorch for GPUs alone
        return None
    return gpu_rows


def dots(
    window: Tensor,  # shape: (P, B, W), rows contiguous and next to each other
    slot: int,
    out: Tensor,  # shape: (P, B), float64
) -> bool:
    """Write the products of one slot's rows with all slots'; return whether that was possible."""
    if window.device.type == "cuda":
        gpu = _gpu_kernels_for(window)
        return gpu is not None and gpu.dots(window, slot, out)
    kernels = _kernels_for(window)
    if kernels is None:
        return False
    slots, rows, width = window.shape
    # The first rows of each slot are no contiguous array. A kernel compiled for arrays of any
    # strides would take their sums in another order.
    apart = window.stride(0) // width
    joined = window.as_strided(((slots - 1) * apart + rows, width), (width, 1))
    arguments = _array(joined), apart, slot, out.numpy()
    for_chunks(lambda low, high: kernels.dots(*arguments, low, high), out.shape[1], _ROWS)
    return True


def combine(
    shares: Tensor,  # shape: (P, B), float32
    points: Sequence[Tensor],  # P of shape (B, D)
    out: Tensor,  # shape: (B, D), none of the points
) -> bool:
    """Write the weighted sums of matching rows; return whether that was possible."""
    if out.device.type == "cuda":
        gpu = _gpu_kernels_for(out, *points)
        return gpu is not None and gpu.combine(shares, points, out)
    kernels = _kernels_for(out, *points)
    if kernels is None:
        return False
    arguments = shares.numpy(), tuple(map(_array, points)), _array(out)
    for_chunks(lambda low, high: kernels.combine(*arguments, low, high), len(out), _ROWS)
    return True


def changes(
    x: Tensor,  # shape: (B, D)
    y: Tensor,  # shape: (B, D)
    out: Tensor,  # shape: (2, B), float64
) -> bool:
    """Write ||y - x||^2 and ||y||^2 of matching rows; return whether that was possible."""
    if x.device.type == "cuda":
        gpu = _gpu_kernels_for(x, y)
        return gpu is not None and gpu.changes(x, y, out)
    kernels = _kernels_for(x, y)
    if kernels is None:
        return False
    arguments = _array(x), _array(y), out.numpy()
    for_chunks(lambda low, high: kernels.changes(*arguments, low, high), len(x), _ROWS)
    return True


def ratios(
    squares: Tensor,  # shape: (2, B), float64
    limits: torch.finfo,
    out: Tensor,  # shape: (B,), float32, on the CPU
) -> bool:
    """Write the residuals that sums of `changes` stand for; return whether that was possible."""
    kernels = _kernels()
    if kernels is None:
        return False
    kernels.ratios(squares.numpy(), limits.tiny, limits.max, out.numpy())
    return True


def eliminate(
    gram: Tensor,  # shape: (P, P, B), float64
    ridge: float,
    eps: float,
    out: Tensor,  # shape: (P, B), float64
) -> bool:
    """Write what `anderson.mixing_weights` returns; return whether that was possible."""
    if gram.device.type == "cuda":
        gpu = _trusted(gram)
        return gpu is not None and gpu.eliminate(gram, ridge, eps, out)
    kernels = _kernels() if gram.device.type == "cpu" else None
    if kernels is None:
        return False
    arguments = gram.numpy(), ridge, eps, out.numpy()
    for_chunks(lambda low, high: kernels.eliminate(*arguments, low, high), out.shape[1], _ROWS)
    return True


def _kernels_for(*tensors: Tensor) -> Any:
    fits = all(x.device.type == "cpu" and x.dtype in _TYPES for x in tensors)
    return _kernels() if fits and len({x.dtype for x in tensors}) == 1 else None


def _gpu_kernels_for(first: Tensor, *others: Tensor) -> Any:
    kind = first.device, first.dtype
    fits = first.dtype in _TYPES and all((x.device, x.dtype) == kind for x in others)
    return _trusted(first) if fits else None


def _trusted(x: Tensor) -> Any:
    """Return the kernels for a tensor on a GPU, if there are any that may be used."""
    kernels = _gpu_kernels() if is_known_gpu(x.device) else None
    return kernels if kernels is not None and agree(kernels, x.device, x.dtype) else None


def _array(x: Tensor) -> np.ndarray:  # float32, or the bits of bfloat16 as uint16
    x = x.detach()
    return (x if x.dtype == torch.float32 else x.view(torch.uint16)).numpy()
