"""Row-wise inner products whose value for a row does not depend on the other rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

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


def row_dot(
    x: Tensor,  # shape: (B, D)
    y: Tensor,  # shape: (B, D)
) -> Tensor:  # shape: (B,), float64
    """Return the inner product of matching rows.

    Each row is multiplied and summed along its own contiguous memory, where a matrix product may
    pick another kernel for another batch. Half precision is widened first.
    """
    return _row_sums(x, y, torch.mul)


def row_distance(
    x: Tensor,  # shape: (B, D)
    y: Tensor,  # shape: (B, D)
) -> Tensor:  # shape: (B,), float64
    """Return the squared Euclidean distance of matching rows, computed like `row_dot`."""
    return _row_sums(x, y, _squared_difference)


def _squared_difference(a: Tensor, b: Tensor, *, out: Tensor) -> None:
    torch.sub(a, b, out=out)
    out.mul_(out)


def _row_sums(x: Tensor, y: Tensor, product: Callable[..., object]) -> Tensor:
    """Return the sum of ``product(x, y)`` along each row."""
    half = x.dtype in (torch.float16, torch.bfloat16)
    kind = torch.float32 if half else x.dtype
    out = torch.empty(x.shape[0], dtype=torch.float64, device=x.device)
    # Two rows at least: a lone one is summed in another order when threads share it. One buffer
    # for all blocks: fresh pages would cost several times the arithmetic.
    rows = max(2, min(_block_rows(x), x.shape[0]))
    buffer = torch.zeros((rows, x.shape[1]), dtype=kind, device=x.device)
    for block in row_blocks(x):
        a, b = x[block], y[block]
        count = a.shape[0]
        if half:
            a, b = a.float(), b.float()
        product(a, b, out=buffer[:count])
        out[block] = buffer[: max(2, count)].sum(-1)[:count]
    return out
