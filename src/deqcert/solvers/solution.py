"""What a solve returns: the states, and for every row how it went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

from torch import Tensor

from deqcert.solvers.state import State, map_state


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
        state: The states reached, built like the start, NaN throughout in NONFINITE rows; empty
            where they were not kept.
        status: `Status` of each row, shape (B,), uint8.
        steps: Steps each row spent, shape (B,), int32.
        residual: Relative residual ||f(z) - z|| / ||f(z)|| of each row at the last z where the
            cell was evaluated, shape (B,), float32.
        cell_evaluations: Cell evaluations spent on each row, shape (B,), int32.
        rows_evaluated: Rows the hardware computed, padding and finished rows included.
        clearance: How far the lead of each row was at least from going the other way at an exit
            (`SolverSpec.exits`), in logits, shape (B,); None where there were no exits.
    """

    state: State
    status: Tensor
    steps: Tensor
    residual: Tensor
    cell_evaluations: Tensor
    rows_evaluated: int
    clearance: Tensor | None = None

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Solution:
        """Return this solution with `function` applied to each of its tensors."""
        return replace(
            self,
            state=map_state(function, self.state),
            status=function(self.status),
            steps=function(self.steps),
            residual=function(self.residual),
            cell_evaluations=function(self.cell_evaluations),
            clearance=None if self.clearance is None else function(self.clearance),
        )

    def continued(self, rows: Tensor, further: Solution) -> Solution:
        """Return this solution where some of its rows were solved on from their states.

        Args:
            rows: Which rows, int64, in the order of `further`.
            further: What became of them; steps and evaluations are those of this part alone.
        """

        def write(old: Tensor, new: Tensor) -> Tensor:
            return old.index_copy(0, rows, new.to(old.dtype))

        return replace(
            self,
            state=map_state(write, self.state, further.state),
            status=write(self.status, further.status),
            steps=write(self.steps, self.steps[rows] + further.steps),
            residual=write(self.residual, further.residual),
            cell_evaluations=write(
                self.cell_evaluations, self.cell_evaluations[rows] + further.cell_evaluations
            ),
            rows_evaluated=self.rows_evaluated + further.rows_evaluated,
        )
