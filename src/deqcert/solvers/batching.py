"""The fixed set of batch sizes the hardware sees (THEORY 1.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deqcert.errors import ConfigurationError

DEFAULT_SIZES = (16, 32, 64, 96, 128, 192, 256, 320, 400, 512)
"""Even and not tiny: kernels were measured to round a row alike at even batches of 16 and more."""


def check_sizes(sizes: Sequence[int] | None) -> tuple[int, ...]:
    """Return the sizes in ascending order; None stands for `DEFAULT_SIZES`.

    Raises:
        ConfigurationError: A size is not an integer >= 1, or there is none.
    """
    if sizes is None:
        return DEFAULT_SIZES
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise ConfigurationError(f"batch sizes must be integers >= 1, but got {tuple(sizes)}")
    return tuple(sorted(sizes))


def padded_size(rows: int, sizes: Sequence[int]) -> int:
    """Return the smallest size that holds `rows`; past the largest, a multiple of the smallest.

    >>> padded_size(7, DEFAULT_SIZES), padded_size(400, DEFAULT_SIZES), padded_size(600, (16, 512))
    (16, 400, 608)
    """
    for size in sizes:
        if rows <= size:
            return size
    return -(-rows // sizes[0]) * sizes[0]


def padded_rows(
    rows: Tensor,  # shape: (R,), int64
    size: int,
) -> Tensor:  # shape: (size,), int64
    """Return the row numbers followed by repeats of themselves, up to `size`."""
    repeats = torch.arange(size, device=rows.device) % rows.shape[0]
    return rows[repeats]
