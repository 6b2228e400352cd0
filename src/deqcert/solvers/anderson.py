"""Anderson acceleration (type II) with a Gram matrix that is updated, never rebuilt."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from deqcert.solvers.reduce import row_blocks, row_dot
from deqcert.solvers.spec import SolverSpec


@dataclass
class AndersonMemory:
    """The window of past pairs, newest first.

    Attributes:
        points: Damped values z_i + mixing (f(z_i) - z_i), each of shape (B, D).
        residuals: f(z_i) - z_i, each of shape (B, D).
        gram: Inner products of the residuals, shape (B, P, P) for P pairs, float64.
    """

    points: list[Tensor] = field(default_factory=list)
    residuals: list[Tensor] = field(default_factory=list)
    gram: Tensor | None = None


class Anderson:
    """z_{k+1} = sum_i a_i (z_i + mixing r_i), the a_i summing to 1 with ||sum a_i r_i|| smallest.

    r_i = f(z_i) - z_i over the last `memory` pairs, the newest included; the a_i solve
    (G + ridge I) a ~ 1 for the Gram matrix G of the r_i: the bordered system of the public DEQ code
    (Bai, Koltun, Kolter 2020) with its absolute ridge of 1e-4, eliminated by hand. References:
    Anderson (1965); Walker, Ni (2011), type II.

    Departures from the public code: a pair whose residual depends on newer ones, to the precision
    of the inner products, gets weight 0 (there the system is singular and its solution noise, or
    an exception for the whole batch); a row at its fixed point stays there; the newest pair is
    used from the cell's own output, so that memory - 1 pairs are stored, not memory, and of a pair
    only the two vectors that the formulas need. Per row: 2 (memory - 1) D floats.
    """

    elementwise = False

    def __init__(self, spec: SolverSpec) -> None:
        self.kept = min(spec.memory, spec.max_steps) - 1
        self.ridge = spec.ridge
        self.mixing = spec.mixing

    @staticmethod
    def bytes_per_row(spec: SolverSpec, features: int, itemsize: int) -> int:
        """Return the bytes one row of history takes."""
        kept = min(spec.memory, spec.max_steps) - 1
        return 2 * kept * features * itemsize + 8 * kept * kept

    def init(self, rows: int, features: int, like: Tensor) -> AndersonMemory:
        """Return the memory of a fresh solve."""
        del rows, features, like
        return AndersonMemory()

    def step(
        self,
        memory: AndersonMemory,
        z: Tensor,  # shape: (B, D), overwritten
        fz: Tensor,  # shape: (B, D)
    ) -> Tensor:  # shape: (B, D)
        """Return the next iterate; the pair (z, fz) enters the memory, which keeps both tensors.

        In steady state nothing is allocated: the residual overwrites z, and the next iterate the
        residual that leaves the window (fresh pages cost as much as the arithmetic on a CPU).
        """
        point = fz if self.mixing == 1 else torch.lerp(z, fz, self.mixing)
        residual = torch.sub(fz, z, out=z)
        gram = _bordered(memory, residual)
        weights = mixing_weights(gram, self.ridge, torch.finfo(z.dtype).eps).to(z.dtype)
        full = self.kept > 0 and len(memory.residuals) == self.kept
        out = memory.residuals.pop() if full else torch.empty_like(z)
        _combine(weights, [point, *memory.points], out)
        if self.kept:
            memory.points = [point, *memory.points][: self.kept]
            memory.residuals = [residual, *memory.residuals]
            memory.gram = gram[:, : self.kept, : self.kept].contiguous()
        return out

    def select(self, memory: AndersonMemory, rows: Tensor) -> AndersonMemory:
        """Return the memory of the given rows; slot by slot, so that old ones are freed early."""
        for slots in (memory.points, memory.residuals):
            for i, slot in enumerate(slots):
                slots[i] = slot.index_select(0, rows)
        if memory.gram is not None:
            memory.gram = memory.gram.index_select(0, rows)
        return memory


def _bordered(memory: AndersonMemory, residual: Tensor) -> Tensor:  # shape: (B, P + 1, P + 1)
    """Return the Gram matrix with the newest residual as its first row and column."""
    size = len(memory.residuals) + 1
    gram = residual.new_empty((residual.shape[0], size, size), dtype=torch.float64)
    if memory.gram is not None:
        gram[:, 1:, 1:] = memory.gram
    for i, other in enumerate([residual, *memory.residuals]):
        gram[:, 0, i] = gram[:, i, 0] = row_dot(residual, other)
    return gram


def mixing_weights(
    gram: Tensor,  # shape: (B, P, P), float64, newest pair first
    ridge: float,
    eps: float,
) -> Tensor:  # shape: (B, P), float64, rows sum to 1
    """Return a ~ (G + ridge I)^-1 1, normalised to sum 1, by Gauss-Jordan elimination per row.

    Written out over the batch (P is small), so that a row's weights are its own business: nothing
    raises, and NaN stays in its row. The matrix is positive definite but for rounding, so pivots
    are taken in order, the newest first; one below 8 eps of its diagonal means a residual that
    depends on newer ones within rounding, and that pair gets weight 0. `eps` is the precision of
    the residuals. A row whose newest residual is zero takes the newest pair alone.
    """
    size = gram.shape[1]
    newest = torch.zeros_like(gram[:, 0])
    newest[:, 0] = 1
    if size == 1:
        return newest
    system = torch.cat([gram, torch.ones_like(gram[:, :, :1])], dim=2)
    diagonal = system.diagonal(dim1=1, dim2=2)
    diagonal += ridge
    smallest = 8 * eps * diagonal
    weights = torch.empty_like(newest)
    for j in range(size):
        pivot = system[:, j, j]
        # 1 / NaN passes, so that a row with NaN shows it.
        inverse = torch.where(pivot <= smallest[:, j], 0, pivot.reciprocal())
        factor = system[:, :, j] * inverse[:, None]
        factor[:, j] = 0
        system.addcmul_(factor[:, :, None], system[:, j : j + 1].clone(), value=-1)
        weights[:, j] = inverse
    weights *= system[:, :, size]
    weights /= weights.sum(-1, keepdim=True)
    return torch.where(gram[:, 0, :1] == 0, newest, weights)


def _combine(
    weights: Tensor,  # shape: (B, P)
    points: list[Tensor],  # P of shape (B, D)
    out: Tensor,  # shape: (B, D), overwritten
) -> None:
    """Write the weighted sum of the points of each row."""
    for rows in row_blocks(out):
        block, share = out[rows], weights[rows]
        torch.mul(points[0][rows], share[:, :1], out=block)
        for i in range(1, len(points)):
            block.addcmul_(points[i][rows], share[:, i : i + 1])
