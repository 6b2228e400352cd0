"""Keeping freed CPU memory, so that every cell evaluation does not fetch its pages anew."""

from __future__ import annotations

from functools import lru_cache

import torch


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Make glibc keep up to 64 MB of freed memory instead of returning it; once per process.

    glibc gives the free top of its heap back to the system beyond twice the largest block it has
    freed after mapping it by itself, at most 32 MB. A solver's history, held between evaluations of
    the cell, moves the cell's temporaries to the top; their pages then come and go with every
    evaluation, which cost up to twice the evaluation itself (digit-sized states, 400 rows, median).
    Allocating and freeing one block just below the limit raises the threshold. Other allocators
    see a block come and go.
    """
    block = torch.empty(31 << 20, dtype=torch.uint8)
    del block
