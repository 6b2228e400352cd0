"""Row-wise inner products whose value for a row does not depend on the other rows."""

from __future__ import annotations

import torch
from torch import Tensor

from deqcert.solvers import compiled

_HALF = (torch.float16, torch.bfloat16)
_PIECE = 512
"""Numbers per product of `window_dots`: float32 sums of short pieces err by 1e-7 of the whole,
those of a whole row of 14,336 by 1e-6, and are no faster."""
_LINE = 16
"""Rows start at multiples of so many numbers: kernels may sum in another order from elsewhere."""

_CPU_BLOCK = 1 << 18
"""Numbers per block of rows: products stay in the second-level cache (2.5 to 5 times faster than
one product over 400 rows, and than batched matrix products)."""
_GPU_BLOCK = 1 << 26
"""Numbers per block on other devices: bounds the temporary at 256 MB in float32."""


def row_blocks(x: Tensor) -> list[slice]:
    """Return slices of rows of `x` (shape (B, D)) that a kernel should take at once."""
    step = _block_rows(x)
    return [slice(start, start + step) for start in range(0, x.shape[0], step)]


def _block_rows(x: Tensor) -> int:
    limit = _CPU_BLOCK if x.device.type == "cpu" else _GPU_BLOCK
    return max(2, limit // max(1, x.shape[1]) // 2 * 2)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type sums are taken in: float32 for half precision, else `dtype` itself."""
    return torch.float32 if dtype in _HALF else dtype


def window_width(features: int) -> int:
    """Return the padded length of rows for `window_dots`: even pieces of whole cache lines."""
    pieces = -(-features // _PIECE)
    return pieces * (-(-features // (pieces * _LINE)) * _LINE)


def window_dots(
    window: Tensor,  # shape: (P, B, W), W from `window_width`, zeros at the end
    slot: int,
) -> Tensor:  # shape: (P, B), float64
    """Return the inner product of each row of one slot with the matching row of every slot.

    On a CPU one batched product of (1, piece) by (piece, P) matrices, one matrix per row and piece:
    each row of the window is read once and nothing else is written. Two to three times faster than
    slot by slot, and at 90 % of the memory's speed. Half precision is widened first, but where it
    is compiled.
    """
    slots, rows, width = window.shape
    out = torch.empty((slots, rows), dtype=torch.float64, device=window.device)
    if window.device.type != "cpu":  # there a batched product may split rows by the batch's size
        if not compiled.dots(window, slot, out):
            torch.stack([row_dot(window[slot], other) for other in window], out=out)
        return out
    if window.dtype in _HALF:
        if compiled.dots(window, slot, out):
            return out
        for block in row_blocks(window[slot]):
            out[:, block] = window_dots(window[:, block].float(), slot)
        return out
    pieces = -(-width // _PIECE)
    piece = width // pieces
    left = window[slot].view(rows * pieces, 1, piece)
    right = window.view(slots, rows * pieces, piece).permute(1, 2, 0)
    products = torch.bmm(left, right).view(rows, pieces, slots)
    return products.sum(1, dtype=torch.float64).t()


def row_dot(
    x: Tensor,  # shape: (B, D)
    y: Tensor,  # shape: (B, D)
) -> Tensor:  # shape: (B,), float64
    """Return the inner product of matching rows.

    Each row is multiplied and summed along its own contiguous memory, where a matrix product may
    pick another kernel for another batch. Half precision is widened first.
    """
    out = torch.empty(x.shape[0], dtype=torch.float64, device=x.device)
    buffer = _row_buffer(x)
    for block in row_blocks(x):
        a, b = x[block], y[block]
        count = a.shape[0]
        if x.dtype in _HALF:
            a, b = a.float(), b.float()
        torch.mul(a, b, out=buffer[:count])
        out[block] = buffer[: max(2, count)].sum(-1)[:count]
    return out


def row_changes(
    x: Tensor,  # shape: (B, D)
    y: Tensor,  # shape: (B, D)
) -> Tensor:  # shape: (2, B), float64
    """Return ||y - x||^2 and ||y||^2 of matching rows, reading each once."""
    out = torch.empty((2, x.shape[0]), dtype=torch.float64, device=x.device)
    if compiled.changes(x, y, out):
        return out
    buffer = _row_buffer(x)
    for block in row_blocks(x):
        a, b = x[block].to(buffer.dtype), y[block].to(buffer.dtype)
        change = buffer[: a.shape[0]]
        torch.sub(b, a, out=change)
        out[0, block] = _norms(change, buffer)
        if a.shape[0] < 2:
            b = change.copy_(b)
        out[1, block] = _norms(b, buffer)
    return out.square_()


def _norms(block: Tensor, buffer: Tensor) -> Tensor:
    # As in `row_dot`: a lone row takes a second one along.
    source = block if block.shape[0] >= 2 else buffer[:2]
    return torch.linalg.vector_norm(source, dim=1)[: block.shape[0]]


def _row_buffer(x: Tensor) -> Tensor:  # shape: (rows of a block, D)
    # Two rows at least: a lone one is summed in another order when threads share it. One buffer
    # for all blocks: fresh pages would cost several times the arithmetic.
    rows = max(2, min(_block_rows(x), x.shape[0]))
    return torch.zeros((rows, x.shape[1]), dtype=wide(x.dtype), device=x.device)
