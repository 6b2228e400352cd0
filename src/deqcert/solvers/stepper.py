"""One algorithm on its way through a solve: memory, current state, and flat matrices if needed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deqcert.solvers.anderson import Anderson
from deqcert.solvers.broyden import Broyden
from deqcert.solvers.picard import Picard
from deqcert.solvers.spec import SolverSpec
from deqcert.solvers.state import Layout, State, batch_rows, leaves, map_state, select_rows

ALGORITHMS: dict[str, Any] = {"picard": Picard, "anderson": Anderson, "broyden": Broyden}


class Stepper:
    """Turns states into the matrices an algorithm works on, and its iterates into states.

    An algorithm has four verbs: ``bytes_per_row(spec, features, itemsize)``, ``init(rows,
    features, like) -> memory``, ``step(memory, z, fz) -> next z`` on (B, D) matrices, which may
    overwrite z and keep both, and ``select(memory, rows) -> memory``. One that is `elementwise`
    is given the tensors of a state as they are.
    """

    def __init__(self, spec: SolverSpec, state: State) -> None:
        self.algorithm = ALGORITHMS[spec.name](spec)
        self.state = state
        self.layout: Layout | None = None
        self.flat: Tensor | None = None
        self.memory: Any = None

    def advance(self, fz: State) -> None:
        """Replace the state z by the algorithm's next iterate."""
        if self.algorithm.elementwise:
            step = self.algorithm.step
            self.state = map_state(lambda a, b: step(self.memory, a, b), self.state, fz)
            return
        if self.layout is None:
            # The cell's own memory order, so that its outputs flatten without a copy.
            self.layout = Layout.of(fz)
            self.memory = self.algorithm.init(batch_rows(fz), self.layout.features, leaves(fz)[0])
        if self.flat is None:
            # Steps overwrite z: the caller's start is copied.
            self.flat = _own(self.layout.flatten(self.state), self.state)
        value = _own(self.layout.flatten(fz), self.flat)
        self.flat = flat = self.algorithm.step(self.memory, self.flat, value)
        self.state = self.layout.unflatten(flat)

    def select(self, rows: Tensor) -> None:
        """Keep the given rows only."""
        self.state = select_rows(self.state, rows)
        if self.layout is not None:
            self.flat = self.layout.flatten(self.state)
            self.memory = self.algorithm.select(self.memory, rows)


def _own(flat: Tensor, other: State) -> Tensor:
    """Return `flat`, copied if it shares memory with `other`."""
    place = flat.untyped_storage().data_ptr()
    shared = any(part.untyped_storage().data_ptr() == place for part in leaves(other))
    return flat.clone() if shared else flat
