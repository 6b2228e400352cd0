"""Passes over the rows of a state, compiled by numba: each reads its arguments once.

PyTorch takes a pass per operation, and widens half precision in memory first. Rows are arrays of
float32, or of the bits of bfloat16 numbers (uint16), which are the upper half of a float32; all
sums are taken in float32 or wider, and what is written is rounded once. A row is computed alone and
in one order, so that its bits depend on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

# Sums may be reordered when compiled, to fill vectors; the order is then the same for every row.
# NaN and infinity keep their meaning.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": {"contract", "nsz", "reassoc"},
    "error_model": "numpy",
}
_PIECE = 512  # numbers summed at once: they stay in the first-level cache
_LANES = 16  # small systems solved at once, one per place of two vectors of float64


def _kernel(function: Callable[..., None]) -> Any:
    """Compile at the first call, and keep the machine code on disk where a folder is writable."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba found no folder to write to
        return njit(**_OPTIONS)(function)


def _wide(number: Any) -> Any:
    """Return a float32, from one or from the bits of a bfloat16."""


@overload(_wide, inline="always")
def _widening(number):
    if number == types.float32:
        return lambda number: number
    return lambda number: np.uint32(np.uint32(number) << np.uint32(16)).view(np.float32)


def _narrow(sums: Any, row: Any) -> None:
    """Write float32 in the format of `row`: to bfloat16 rounded to the nearest, ties to even."""


@overload(_narrow)
def _narrowing(sums, row):
    if row.dtype == types.float32:

        def copied(sums, row):
            for j in range(row.size):
                row[j] = sums[j]

        return copied

    def rounded(sums, row):
        words = sums.view(np.uint32)
        for j in range(row.size):
            word = words[j]
            odd = (word >> np.uint32(16)) & np.uint32(1)
            near = (word + np.uint32(0x7FFF) + odd) >> np.uint32(16)
            nan = (word & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
            row[j] = np.uint16(np.uint32(0x7FC0) if nan else near)

    return rounded


@_kernel
def dots(window, apart, slot, out, low, high):
    """Write the products of row b of one slot with row b of each, for b in low..high-1.

    `window`: (rows, W), of which slot p has those from p * `apart` on; `out`: (P, B) float64.
    """
    slots, width = out.shape[0], window.shape[1]
    newest = np.empty(_PIECE, np.float32)
    for row in range(low, high):
        for i in range(slots):
            out[i, row] = 0.0
        for start in range(0, width, _PIECE):
            count = min(_PIECE, width - start)
            piece = window[slot * apart + row, start : start + count]
            for j in range(count):
                newest[j] = _wide(piece[j])
            for i in range(slots):
                other = window[i * apart + row, start : start + count]
                total = np.float32(0.0)
                for j in range(count):
                    total += newest[j] * _wide(other[j])
                out[i, row] += total


@_kernel
def combine(shares, points, out, low, high):
    """Write the weighted sums of the rows low..high-1 of the points.

    `shares`: (P, B) float32; `points`: P arrays (B, D); `out`: (B, D).
    """
    width = out.shape[1]
    sums = np.empty(_PIECE, np.float32)
    for row in range(low, high):
        for start in range(0, width, _PIECE):
            count = min(_PIECE, width - start)
            share, point = shares[0, row], points[0][row, start : start + count]
            for j in range(count):
                sums[j] = share * _wide(point[j])
            for i in range(1, len(points)):
                share, point = shares[i, row], points[i][row, start : start + count]
                for j in range(count):
                    sums[j] += share * _wide(point[j])
            _narrow(sums, out[row, start : start + count])


@_kernel
def changes(x, y, out, low, high):
    """Write ||y - x||^2 and ||y||^2 of the rows low..high-1.

    `x`, `y`: (B, D); `out`: (2, B) float64.
    """
    width = x.shape[1]
    for row in range(low, high):
        out[0, row] = out[1, row] = 0.0
        for start in range(0, width, _PIECE):
            end = min(width, start + _PIECE)
            before, after = x[row, start:end], y[row, start:end]
            change, size = np.float32(0.0), np.float32(0.0)
            for j in range(before.size):
                value = _wide(after[j])
                difference = value - _wide(before[j])
                change += difference * difference
                size += value * value
            out[0, row] += change
            out[1, row] += size


@_kernel
def ratios(squares, tiny, most, out):
    """Write the relative residuals that sums of `changes` stand for.

    `squares`: (2, B) float64; `out`: (B,) float32. The rules are those of `residual.ratios`.
    """
    for row in range(out.size):
        change, size = squares[0, row], squares[1, row]
        ratio = np.sqrt(change) / max(tiny, np.sqrt(size))
        if np.isfinite(change) and np.isfinite(size):
            ratio = min(ratio, most)
        elif np.isnan(size):
            ratio = size
        out[row] = ratio


@_kernel
def eliminate(gram, ridge, eps, out, low, high):
    """Write the solution of (gram + ridge I) a ~ 1, scaled to sum 1, of rows low..high-1.

    `gram`: (P, P, B); `out`: (P, B); both float64. The rules are those of `mixing_weights`.
    """
    size = gram.shape[0]
    system, right = np.empty((size, size, _LANES)), np.empty((size, _LANES))
    smallest, inverses = np.empty((size, _LANES)), np.empty((size, _LANES))
    factor, total = np.empty(_LANES), np.empty(_LANES)
    for start in range(low, high, _LANES):
        count = min(_LANES, high - start)
        system[:] = 1.0  # the lanes left over: all run along, so that a row meets the same code
        for i in range(size):
            for k in range(size):
                for b in range(count):
                    system[i, k, b] = gram[i, k, start + b]
        for i in range(size):
            for b in range(_LANES):
                system[i, i, b] += ridge
                smallest[i, b] = 8.0 * eps * system[i, i, b]
                right[i, b] = 1.0
        for j in range(size):
            for b in range(_LANES):
                pivot = system[j, j, b]
                inverses[j, b] = 0.0 if pivot <= smallest[j, b] else 1.0 / pivot
            for i in range(size):
                if i == j:
                    continue
                for b in range(_LANES):
                    factor[b] = system[i, j, b] * inverses[j, b]
                    right[i, b] -= factor[b] * right[j, b]
                for k in range(j + 1, size):
                    for b in range(_LANES):
                        system[i, k, b] -= factor[b] * system[j, k, b]
        total[:] = 0.0
        for j in range(size):
            for b in range(_LANES):
                right[j, b] *= inverses[j, b]
                total[b] += right[j, b]
        for b in range(count):
            vanished = gram[0, 0, start + b] == 0.0
            for j in range(size):
                share = right[j, b] / total[b]
                if vanished:
                    share = 1.0 if j == 0 else 0.0
                out[j, start + b] = share
