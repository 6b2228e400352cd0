"""How many rows the hardware computes at once: fewer where memory runs out, same results."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

import torch

from deqcert.errors import NumericalWarning
from deqcert.models import BATCH_SIZES

_MESSAGES = re.compile(r"can't allocate memory|not enough memory|out of memory|bad_alloc", re.I)
"""What PyTorch's CPU allocators, and libraries below it, say in a plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the host or on a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _MESSAGES.search(str(error)) is not None


class HardwareBatch:
    """Rows computed at once. No label depends on it, so it may shrink in the middle of a run.

    Attributes:
        rows: The present size, >= 1.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._warned = False

    def each(self, count: int, work: Callable[[int, int], None]) -> None:
        """Call ``work(low, high)`` over the rows 0..count-1, at most `rows` at once.

        Where memory runs out the size falls to the largest of the fixed batch sizes that is at most
        half of it, and stays there; the first time a warning says so. `work` is then called again
        with fewer rows: it must have no effect before everything that allocates has succeeded.

        Raises:
            MemoryError: Even the smallest of the fixed sizes needs more than there is.
        """
        low = 0
        while low < count:
            high = min(low + self.rows, count)
            failed = ""
            try:
                work(low, high)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = str(error).split("\n")[0]
            # Outside of the handler, whose traceback keeps the tensors of the failed call alive.
            if failed:
                self._shrink(high - low, failed)
            else:
                low = high

    def _shrink(self, tried: int, reason: str) -> None:
        smaller = [size for size in BATCH_SIZES if 2 * size <= tried]
        if not smaller:
            raise MemoryError(f"{tried} rows need more memory than there is: {reason}")
        self.rows = smaller[-1]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{tried} rows at once need more memory than there is; going on with {self.rows} "
                f"or fewer, with the same results ({reason})",
                NumericalWarning,
                stacklevel=4,
            )
