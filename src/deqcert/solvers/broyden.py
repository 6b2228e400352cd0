"""Broyden's good method, limited memory, from its steps alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from deqcert.solvers.reduce import row_blocks, row_dot
from deqcert.solvers.spec import SolverSpec


@dataclass
class BroydenMemory:
    """The steps since the last restart, oldest first.

    Attributes:
        steps: z_{j+1} - z_j, each of shape (B, D).
        inverse_norms: 1 / ||step||^2, each of shape (B,), float64; 0 where a row leaves it out.
    """

    steps: list[Tensor] = field(default_factory=list)
    inverse_norms: list[Tensor] = field(default_factory=list)


class Broyden:
    """Solves g(z) = f(z) - z = 0 by good Broyden steps from B_0 = -I, so that z_1 = f(z_0).

    The inverse Jacobian is the product of (I + (s_{j+1} - (1 - mixing) s_j) s_j' / ||s_j||^2),
    applied factor by factor: it needs the steps s_j alone (Kelley 1995, *Iterative methods for
    linear and nonlinear equations*, section 7.3). In exact arithmetic these are the iterates of the
    public DEQ code (Bai, Koltun, Kolter 2020; rank-one updates, no line search), which keeps two
    vectors per step; here it is one, and a step costs a third of the memory traffic.

    Once `memory` steps are kept and used, the history is dropped and the method restarts from the
    current iterate (every memory + 1 steps). A row whose update has no usable denominator takes a
    Picard step and restarts by itself.
    Per row: min(memory, max_steps - 1) D floats.
    """

    takes = "matrix"

    def __init__(self, spec: SolverSpec) -> None:
        self.kept = min(spec.memory, spec.max_steps - 1)
        self.mixing = spec.mixing

    @staticmethod
    def bytes_per_row(spec: SolverSpec, features: int, itemsize: int) -> int:
        """Return the bytes one row of history takes."""
        return min(spec.memory, spec.max_steps - 1) * (features * itemsize + 8)

    def init(self, rows: int, features: int, like: Tensor) -> BroydenMemory:
        """Return the memory of a fresh solve."""
        del rows, features, like
        return BroydenMemory()

    def step(
        self,
        memory: BroydenMemory,
        z: Tensor,  # shape: (B, D), overwritten
        fz: Tensor,  # shape: (B, D)
    ) -> Tensor:  # shape: (B, D)
        """Return the next iterate, in the memory of z; the step to it enters the history."""
        step = fz - z
        if memory.steps:
            step = self._direction(memory, step)
        if self.mixing != 1:
            step *= self.mixing
        if len(memory.steps) < self.kept:
            squared = row_dot(step, step)
            memory.steps.append(step)
            memory.inverse_norms.append(torch.where(squared == 0, 0, 1 / squared))
        else:
            # Only a step taken from B = -I may open a new history: the next one.
            memory.steps, memory.inverse_norms = [], []
        return z.add_(step)

    def _direction(self, memory: BroydenMemory, value: Tensor) -> Tensor:
        """Return -B^-1 g per row; a row without a usable denominator gets g and forgets."""
        out = value.clone()
        for j in range(len(memory.steps) - 1):
            share = row_dot(memory.steps[j], out) * memory.inverse_norms[j]
            _add(out, share, memory.steps[j + 1])
            if self.mixing != 1:
                _add(out, share * (self.mixing - 1), memory.steps[j])
        last = memory.steps[-1]
        share = row_dot(last, out) * memory.inverse_norms[-1]
        # With w = -B_k^-1 g and c = s.w / ||s||^2 the new direction -B_{k+1}^-1 g is
        # (w - (1 - mixing) c s) / (1 - mixing c), by Sherman and Morrison.
        below = 1 - self.mixing * share
        if self.mixing != 1:
            _add(out, share * (self.mixing - 1), last)
        # Below its rounding error a denominator says nothing. NaN passes: the row has to show it.
        usable = ~(below.abs() <= 8 * torch.finfo(out.dtype).eps)
        for j, inverse in enumerate(memory.inverse_norms):
            memory.inverse_norms[j] = torch.where(usable, inverse, 0)
        scale = torch.where(usable, 1 / below, 0).to(out.dtype)
        out *= scale[:, None]
        return torch.where(usable[:, None], out, value)

    def select(self, memory: BroydenMemory, rows: Tensor) -> BroydenMemory:
        """Return the memory of the given rows."""
        for slots in (memory.steps, memory.inverse_norms):
            for i, slot in enumerate(slots):
                slots[i] = slot.index_select(0, rows)
        return memory


def _add(
    out: Tensor,  # shape: (B, D), changed in place
    share: Tensor,  # shape: (B,), float64
    other: Tensor,  # shape: (B, D)
) -> None:
    """Add share times other to each row."""
    share = share.to(out.dtype)[:, None]
    for rows in row_blocks(out):
        out[rows].addcmul_(other[rows], share[rows])
