"""What a solve returns: the states, and for every row how it went."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

from deqcert.solvers.state import State


class Status(IntEnum):
    """How the solve of one row ended; `advice` says what to do about it."""

    MAX_STEPS = 0
    CONVERGED = 1
    NONFINITE = 2

    @property
    def advice(self) -> str:
        """One sentence for a report."""
        return _ADVICE[self]


_ADVICE = {
    Status.MAX_STEPS: "All steps were spent; with a tolerance, allow more steps or loosen it.",
    Status.CONVERGED: "The relative residual passed the tolerance.",
    Status.NONFINITE: "NaN or infinity appeared; the row's state is NaN and is no answer.",
}


@dataclass(frozen=True)
class Solution:
    """The outcome of a solve of B rows.

    Attributes:
        state: The states reached, built like the start; NaN throughout in NONFINITE rows.
        status: `Status` of each row, shape (B,), uint8.
        steps: Steps each row spent, shape (B,), int32.
        residual: Relative residual ||f(z) - z|| / ||f(z)|| of each row at the last z where the
            cell was evaluated, shape (B,), float32.
        cell_evaluations: Cell evaluations spent on each row, shape (B,), int32.
        rows_evaluated: Rows the hardware computed, padding and finished rows included.
    """

    state: State
    status: Tensor
    steps: Tensor
    residual: Tensor
    cell_evaluations: Tensor
    rows_evaluated: int
