"""Anderson acceleration (type II) with a Gram matrix that is updated, never rebuilt."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from deqcert.solvers import compiled
from deqcert.solvers.reduce import (
    row_blocks,
    wide,
    window_dots,
    window_width,
)
from deqcert.solvers.spec import SolverSpec

_VECTORS = 16
"""Rows are weighed in multiples of so many: two of the widest vectors of float64."""


@dataclass
class AndersonMemory:
    """The window of past pairs.

    Attributes:
        points: Damped values z_i + mixing (f(z_i) - z_i), newest first, each a list with one
            matrix (B, D_j) per tensor of the state.
        residuals: f(z_i) - z_i of up to P pairs, shape (P, B, W), in no order, padded with zeros;
            None where one pair is all there is.
        gram: Inner products of the residuals, shape (P, P, B), float64.
        slots: Which places of `residuals` are in use, newest first.
    """

    points: list[list[Tensor]] = field(default_factory=list)
    residuals: Tensor | None = None
    gram: Tensor | None = None
    slots: list[int] = field(default_factory=list)


class Anderson:
    """z_{k+1} = sum_i a_i (z_i + mixing r_i), the a_i summing to 1 with ||sum a_i r_i|| smallest.

    r_i = f(z_i) - z_i over the last `memory` pairs, the newest included; the a_i solve
    (G + ridge I) a ~ 1 for the Gram matrix G of the r_i: the bordered system of the public DEQ code
    (Bai, Koltun, Kolter 2020) with its absolute ridge of 1e-4, eliminated by hand. References:
    Anderson (1965); Walker, Ni (2011), type II.

    Departures from the public code: a pair whose residual depends on newer ones, to the precision
    of the inner products, gets weight 0 (there the system is singular and its solution noise, or
    an exception for the whole batch); a row at its fixed point stays there; the newest pair is
    used from the cell's own output, so that memory - 1 points are stored, not memory, and of a pair
    only the two vectors that the formulas need. Per row: (2 memory - 1) D numbers.

    Half precision states: points are kept as the cell gives them, which loses nothing; residuals
    are rounded once, far below the rounding of f(z) itself; products, weights and sums are float32
    or wider, and the next iterate is rounded once.
    """

    takes = "parts"

    def __init__(self, spec: SolverSpec) -> None:
        self.pairs = min(spec.memory, spec.max_steps)
        self.ridge = spec.ridge
        self.mixing = spec.mixing

    @staticmethod
    def bytes_per_row(spec: SolverSpec, features: int, itemsize: int) -> int:
        """Return the bytes one row of history takes."""
        pairs = min(spec.memory, spec.max_steps)
        if pairs == 1:
            return 0
        numbers = (pairs - 1) * features + pairs * window_width(features)
        return numbers * itemsize + 8 * pairs * pairs

    def init(self, rows: int, features: int, like: Tensor) -> AndersonMemory:
        """Return the memory of a fresh solve."""
        memory = AndersonMemory()
        if self.pairs > 1:
            width = window_width(features)
            shape = (self.pairs, rows, width)
            memory.residuals = like.new_empty(shape)
            memory.residuals[:, :, features:] = 0
            memory.gram = like.new_zeros((self.pairs, self.pairs, rows), dtype=torch.float64)
        return memory

    def step(
        self,
        memory: AndersonMemory,
        z: list[Tensor],  # each of shape (B, D_j), overwritten
        fz: list[Tensor],  # each of shape (B, D_j)
    ) -> list[Tensor]:  # each of shape (B, D_j)
        """Return the next iterate, in the memory of z; the pair (z, fz) enters the window.

        Nothing of the state's size is allocated (fresh pages cost as much as the arithmetic on a
        CPU), and no tensor of a state of several is copied together with the others.
        """
        mixing = self.mixing
        point = fz
        if mixing != 1:
            point = [torch.lerp(a, b, mixing) for a, b in zip(z, fz, strict=True)]
        if memory.residuals is None or memory.gram is None:
            for out, part in zip(z, point, strict=True):
                out.copy_(part)
            return z
        self._enter(memory, z, fz)
        weights = mixing_weights(_newest_first(memory), self.ridge, torch.finfo(z[0].dtype).eps)
        memory.points = [point, *memory.points][: self.pairs]
        shares = weights.t().to(wide(z[0].dtype)).contiguous()
        for j, out in enumerate(z):
            _combine(shares, [pair[j] for pair in memory.points], out)
        memory.points = memory.points[: self.pairs - 1]
        return z

    def _enter(self, memory: AndersonMemory, z: list[Tensor], fz: list[Tensor]) -> None:
        """Put the newest residual in the place of the oldest, and its products into the Gram."""
        assert memory.residuals is not None
        assert memory.gram is not None
        used = len(memory.slots)
        slot = used if used < self.pairs else memory.slots.pop()
        memory.slots.insert(0, slot)
        residual, start = memory.residuals[slot], 0
        for a, b in zip(z, fz, strict=True):
            torch.sub(b, a, out=residual[:, start : start + a.shape[1]])
            start += a.shape[1]
        used = len(memory.slots)
        products = window_dots(memory.residuals[:used], slot)
        memory.gram[slot, :used] = memory.gram[:used, slot] = products

    def select(self, memory: AndersonMemory, rows: Tensor) -> AndersonMemory:
        """Return the memory of the given rows; residuals move up where they are, slot by slot."""
        memory.points = [[part.index_select(0, rows) for part in pair] for pair in memory.points]
        if memory.residuals is not None and memory.gram is not None:
            for slot in memory.slots:
                memory.residuals[slot, : len(rows)] = memory.residuals[slot].index_select(0, rows)
            memory.residuals = memory.residuals[:, : len(rows)]
            memory.gram = memory.gram.index_select(2, rows)
        return memory


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
    rows, size, _ = gram.shape
    weights = gram.new_empty((size, rows))
    if compiled.eliminate(gram.permute(1, 2, 0), ridge, eps, weights):
        return weights.t()
    # The batch innermost: every operation below runs along it. A kernel may round the rest that
    # does not fill its vectors in another way, so that the batch is filled up to whole ones.
    system = gram.new_ones((size, size + 1, -(-rows // _VECTORS) * _VECTORS))
    system[:, :size, :rows] = gram.permute(1, 2, 0)
    vanished = system[0, 0] == 0
    diagonal = system[:, :size].diagonal(dim1=0, dim2=1)  # (B, P)
    diagonal += ridge
    smallest = 8 * eps * diagonal
    weights = torch.empty_like(system[:, 0])
    for j in range(size):
        pivot = system[j, j]
        # 1 / NaN passes, so that a row with NaN shows it.
        inverse = torch.where(pivot <= smallest[:, j], 0, pivot.reciprocal())
        factor = system[:, j] * inverse
        factor[j] = 0
        # Columns up to j are not looked at again.
        system[:, j + 1 :].addcmul_(factor[:, None], system[j, j + 1 :].clone(), value=-1)
        weights[j] = inverse
    weights *= system[:, size]
    weights /= weights.sum(0)
    # Written to through a mask, for whose true places nobody has to ask the device.
    weights.masked_fill_(vanished, 0)
    weights[0].masked_fill_(vanished, 1)
    return weights[:, :rows].t()


def _newest_first(memory: AndersonMemory) -> Tensor:  # shape: (B, P, P)
    """Return the Gram matrix in the order of the slots.

    Places picked one by one, since a tensor of them would have to be brought to the device, for
    which the host would wait.
    """
    assert memory.gram is not None
    rows = torch.stack([memory.gram[slot] for slot in memory.slots])
    return torch.stack([rows[:, slot] for slot in memory.slots], dim=1).permute(2, 0, 1)


def _combine(
    shares: Tensor,  # shape: (P, B), float32 at least
    points: list[Tensor],  # P of shape (B, D)
    out: Tensor,  # shape: (B, D), overwritten
) -> None:
    """Write the weighted sum of the points of each row."""
    if compiled.combine(shares, points, out):
        return
    for rows in row_blocks(out):
        block, share = out[rows], shares[:, rows, None]
        total = block if out.dtype == shares.dtype else block.to(shares.dtype)
        torch.mul(points[0][rows], share[0], out=total)
        for point, part in zip(points[1:], share[1:], strict=True):
            total.addcmul_(point[rows], part)
        if total is not block:
            block.copy_(total)
