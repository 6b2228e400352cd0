"""What the solves of one certificate cost and how they ended, in memory that does not grow."""

from __future__ import annotations

import numpy as np

from deqcert.solvers import Solution, SolverSpec, Status

QUANTILES = (0.0, 0.5, 0.9, 0.99, 1.0)
# Residuals are kept as a histogram over a fixed grid of 20 bins per decade, so 100,000 draws need
# no more memory than 100; a quantile is reported as the upper edge of its bin.
_EDGES = 10.0 ** np.arange(-12.0, 6.0 + 1e-9, 0.05)


class Spent:
    """Accumulates steps, residuals, failures and cell evaluations over batches of solves."""

    def __init__(self) -> None:
        self.cell_evaluations = 0
        self.unconverged = 0
        self._steps = np.zeros(1, dtype=np.int64)
        self._residuals = np.zeros(len(_EDGES) + 1, dtype=np.int64)
        self._without_residual = 0

    def add(self, solution: Solution, spec: SolverSpec) -> None:
        """Count one batch of solves made with `spec`."""
        status = solution.status.cpu().numpy()
        # Without a tolerance there is nothing to miss: the classifier *is* the k-th iterate.
        failed = status == int(Status.NONFINITE)
        missed = status != int(Status.CONVERGED) if spec.tol > 0 else failed
        self.unconverged += int(missed.sum())
        self.cell_evaluations += int(solution.cell_evaluations.sum())
        self._count_steps(np.bincount(solution.steps.cpu().numpy()))
        residual = solution.residual.float().cpu().numpy()
        finite = np.isfinite(residual)
        self._without_residual += int((~finite).sum())
        bins = np.searchsorted(_EDGES, residual[finite], side="left")
        self._residuals += np.bincount(bins, minlength=len(self._residuals))

    def merge(self, other: Spent) -> None:
        """Take over everything another account counted."""
        self.cell_evaluations += other.cell_evaluations
        self.unconverged += other.unconverged
        self._count_steps(other._steps)
        self._residuals += other._residuals
        self._without_residual += other._without_residual

    def _count_steps(self, steps: np.ndarray) -> None:
        if len(steps) > len(self._steps):
            self._steps = np.pad(self._steps, (0, len(steps) - len(self._steps)))
        self._steps[: len(steps)] += steps

    def steps_quantiles(self) -> dict[str, float]:
        """Return the quantiles of steps per solve, by name; empty without solves."""
        total = int(self._steps.sum())
        if total == 0:
            return {}
        cumulated = np.cumsum(self._steps)
        return {f"{q:g}": float(_first(cumulated, q * total)) for q in QUANTILES}

    def residual_quantiles(self) -> dict[str, float | None]:
        """Return quantiles of the final relative residual; None where it is not finite."""
        total = int(self._residuals.sum()) + self._without_residual
        if total == 0:
            return {}
        cumulated = np.cumsum(self._residuals)
        return {f"{q:g}": _edge(_first(cumulated, q * total)) for q in QUANTILES}


def _first(cumulated: np.ndarray, needed: float) -> int:
    return int(np.searchsorted(cumulated, max(needed, 1.0), side="left"))


def _edge(position: int) -> float | None:
    return float(f"{_EDGES[position]:.3g}") if position < len(_EDGES) else None
