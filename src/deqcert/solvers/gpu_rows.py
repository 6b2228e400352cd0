"""The passes of `compiled` on a GPU: `triton_rows`, launched on tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deqcert.solvers import triton_rows  # loads a compiler: imported only where it is used
from deqcert.solvers.launching import ALIGNED, OPTIONS, current, power

MOST_PAIRS = 8
"""Points that a kernel takes as arguments, and equations that fit into a thread's registers."""
_GROUP = 4
"""Slots of a program. With eight it would take so many registers that the programs of 400 rows are
not all on an H200 at once."""
_LANES = 32
"""Small systems of a program: one per thread of a warp."""


def dots(
    window: Tensor,  # shape: (P, B, W), rows contiguous and next to each other
    slot: int,
    out: Tensor,  # shape: (P, B), float64
) -> bool:
    """Write the products of one slot's rows with all slots'; return True."""
    window = _aligned(window)
    slots, rows, width = window.shape
    numbers = slots, window.stride(0) // width, slot, rows
    sizes = {"W": width, "GROUP": _GROUP, **_block(width, 1024)}
    return _run("dots", (rows, -(-slots // _GROUP)), window, out, *numbers, **sizes)


def combine(
    shares: Tensor,  # shape: (P, B), float32
    points: Sequence[Tensor],  # P of shape (B, D)
    out: Tensor,  # shape: (B, D), none of the points
) -> bool:
    """Write the weighted sums of matching rows; return whether that was possible."""
    if len(points) > MOST_PAIRS:
        return False
    given = [_plain(point) for point in points]
    given += [given[0]] * (MOST_PAIRS - len(points))
    rows, width = out.shape
    sizes = {"P": len(points), **_block(width, 1024)}
    written = out if _plain(out) is out else torch.empty_like(given[0])
    grid = rows, -(-width // sizes["BLOCK"])
    _run("combine", grid, _plain(shares), *given, written, rows, width, **sizes)
    if written is not out:
        out.copy_(written)
    return True


def changes(
    x: Tensor,  # shape: (B, D)
    y: Tensor,  # shape: (B, D)
    out: Tensor,  # shape: (2, B), float64
) -> bool:
    """Write ||y - x||^2 and ||y||^2 of matching rows; return True."""
    rows, width = x.shape
    sizes = {"W": width, **_block(width, 2048)}
    return _run("changes", (rows,), _plain(x), _plain(y), out, rows, **sizes)


def eliminate(
    gram: Tensor,  # shape: (P, P, B), float64
    ridge: float,
    eps: float,
    out: Tensor,  # shape: (P, B), float64
) -> bool:
    """Write what `anderson.mixing_weights` returns; return whether that was possible."""
    size, _, rows = gram.shape
    if size > MOST_PAIRS:
        return False
    sizes = {"P": size, "BP": power(size), "LANES": _LANES, "num_warps": 1}
    grid = (-(-rows // _LANES),)
    return _run("eliminate", grid, _plain(gram), out, rows, RIDGE=ridge, EPS=eps, **sizes)


def _run(name: str, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> bool:
    """Launch a kernel where its first argument lies (Triton's interpreter: on the CPU)."""
    with current(arguments[0].device):
        triton_rows.KERNELS[name][grid](*arguments, **constants, **OPTIONS)
    return True


def _block(width: int, most: int) -> dict[str, int]:
    """Return how many numbers of a row are taken at once, and the warps for them.

    >>> _block(14336, 1024), _block(48, 1024)
    ({'BLOCK': 1024, 'num_warps': 4}, {'BLOCK': 64, 'num_warps': 1})
    """
    block = min(power(width), most)
    return {"BLOCK": block, "num_warps": max(1, block // 256)}


def _plain(x: Tensor) -> Tensor:
    """Return a matrix as kernels read it: without gaps."""
    return _aligned(x.contiguous())


def _aligned(x: Tensor) -> Tensor:
    """Return what lies at a multiple of 16: machine code depends on that, and the order of sums."""
    return x if x.data_ptr() % ALIGNED == 0 else x.clone(memory_format=torch.contiguous_format)
