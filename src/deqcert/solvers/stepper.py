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
    features, like) -> memory``, ``step(memory, z, fz) -> next z``, which may overwrite z and keep
    both, and ``select(memory, rows) -> memory``. `takes` says what z and fz are: ``"tensors"``,
    one after the other as they are; ``"parts"``, a list with one (B, D_i) matrix per tensor;
    ``"matrix"``, a single (B, D) matrix.
    """

    def __init__(self, spec: SolverSpec, state: State) -> None:
        self.algorithm = ALGORITHMS[spec.name](spec)
        self.state = state
        self.layout: Layout | None = None
        self.memory: Any = None
        self._z: Any = None  # the state as the algorithm takes it

    def advance(self, fz: State) -> None:
        """Replace the state z by the algorithm's next iterate."""
        step = self.algorithm.step
        if self.algorithm.takes == "tensors":
            self.state = map_state(lambda a, b: step(self.memory, a, b), self.state, fz)
            return
        first = self.layout is None
        if self.layout is None:
            # The cell's own memory order, so that its outputs are taken without a copy.
            self.layout = Layout.of(fz)
            self.memory = self.algorithm.init(batch_rows(fz), self.layout.features, leaves(fz)[0])
        if self._z is None:
            # Steps overwrite z: the caller's start is copied.
            self._z = self._taken(self.state, apart_from=self.state if first else None)
        self._z = step(self.memory, self._z, self._taken(fz, apart_from=self.state))
        whole = isinstance(self._z, Tensor)
        self.state = self.layout.unflatten(self._z) if whole else self.layout.join(self._z)

    def select(self, rows: Tensor) -> None:
        """Keep the given rows only."""
        self.state = select_rows(self.state, rows)
        if self.layout is not None:
            self._z = None
            self.memory = self.algorithm.select(self.memory, rows)

    def _taken(self, state: State, *, apart_from: State | None) -> Any:
        """Return `state` as the algorithm takes it, copied where it shares memory."""
        assert self.layout is not None
        if self.algorithm.takes == "matrix":
            return _apart(self.layout.flatten(state), apart_from)
        return [_apart(part, apart_from) for part in self.layout.split(state)]


def _apart(matrix: Tensor, other: State | None) -> Tensor:
    """Return `matrix`, copied if it shares memory with `other`."""
    if other is None:
        return matrix
    place = matrix.untyped_storage().data_ptr()
    shared = any(part.untyped_storage().data_ptr() == place for part in leaves(other))
    return matrix.clone() if shared else matrix
