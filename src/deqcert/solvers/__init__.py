"""Fixed-point solvers: one driver with per-sample stopping; Picard, Anderson and Broyden steps."""

from __future__ import annotations

from deqcert.solvers.driver import memory_bytes, solve
from deqcert.solvers.residual import relative_residual
from deqcert.solvers.solution import Solution, Status
from deqcert.solvers.spec import SolverSpec
from deqcert.solvers.state import State, map_state, map_tree, select_rows

__all__ = [
    "Solution",
    "SolverSpec",
    "State",
    "Status",
    "map_state",
    "map_tree",
    "memory_bytes",
    "relative_residual",
    "select_rows",
    "solve",
]
