"""The loop every solver shares: evaluate, measure, freeze, compact, step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deqcert.errors import ConfigurationError
from deqcert.solvers.allocator import keep_freed_memory
from deqcert.solvers.batching import check_sizes, padded_rows, padded_size
from deqcert.solvers.residual import finite_rows, poisoned, relative_residual
from deqcert.solvers.solution import Solution, Status
from deqcert.solvers.spec import SolverSpec
from deqcert.solvers.state import State, batch_rows, leaves, map_state, select_rows
from deqcert.solvers.stepper import ALGORITHMS, Stepper

Cell = Callable[[Any, Any], State]
"""One application of f: ``cell(state, injection)`` returns a state built like `state`."""


@torch.no_grad()
def solve(
    cell: Cell,
    state0: State,  # tensors of shape (B, ...)
    injection: Any = None,  # tensors of shape (B, ...)
    *,
    spec: SolverSpec | str,
    sizes: Sequence[int] | None = None,
    first: Cell | None = None,
) -> Solution:
    """Return approximate fixed points z = cell(z, injection), each row solved by itself.

    Row i starts at row i of `state0`, stops on its own residual, fails alone, and comes out the
    same whatever the other rows do, up to the rounding of the cell's kernels (THEORY 1.1). With
    ``spec.tol == 0`` the k-th iterate is returned after exactly k cell evaluations, and nothing
    waits for the device, so that a row counts as failed only where its last evaluation or state is
    not finite. With a tolerance a row that passes it at z returns cell(z), a failed one stops at
    once, and the rows left are packed into the smallest batch of `sizes` that holds them.

    Args:
        cell: The map. It must not mix rows, change its arguments, or write its results to the
            same memory every time; the memory of its arguments is used again after the call.
        state0: Start of each row; a tensor or a tuple of tensors of one type, batch first.
        injection: What the cell needs besides the state: nested tuples, lists and dicts of
            batch-first tensors (other leaves are handed through).
        spec: The solver, as a `SolverSpec` or a string such as ``"anderson:30:1e-3"``.
        sizes: Batch sizes the cell may see; shorter batches are padded with repeated rows. None
            takes `batching.DEFAULT_SIZES`; ``(1,)`` never pads.
        first: What the first evaluation calls instead of `cell`: the same function, cheaper at
            this start.

    Raises:
        ConfigurationError: The state is not batch first throughout, or the cell changes its build;
            the solver has exits, which need logits (`models.rows.solve_rows`).
        UnknownNameError: The solver is unknown.
    """
    spec = SolverSpec.parse(spec, within="a solve without logits")
    rows = batch_rows(state0)
    if rows == 0:
        return _empty(state0)
    allowed = check_sizes(sizes)
    size = padded_size(rows, allowed)
    device = leaves(state0)[0].device
    if device.type == "cpu":
        keep_freed_memory()
    if size != rows:
        repeats = padded_rows(torch.arange(rows, device=device), size)
        state0, injection = select_rows((state0, injection), repeats)
    if spec.tol == 0:
        return _solve_fixed(_Calls(cell, first), state0, injection, spec, rows)
    return _solve_adaptive(_Calls(cell, first), state0, injection, spec, rows, allowed)


def memory_bytes(spec: SolverSpec | str, rows: int, features: int, *, itemsize: int = 4) -> int:
    """Return the bytes of solver history for `rows` states of `features` numbers.

    The cell's own working memory, and the few states in hand (z, f(z), residual, next z), come on
    top. `itemsize` is the width of the state's number format in bytes.
    """
    spec = SolverSpec.parse(spec)
    return rows * ALGORITHMS[spec.name].bytes_per_row(spec, features, itemsize)


class _Calls:
    """The cell, whose first call may be another one."""

    def __init__(self, cell: Cell, first: Cell | None) -> None:
        self._cell = cell
        self._next = first or cell

    def __call__(self, state: State, injection: Any) -> State:
        call, self._next = self._next, self._cell
        return call(state, injection)


def _evaluate(cell: Cell, state: State, injection: Any) -> State:
    """Return cell(state, injection), built and typed like the state."""
    value = cell(state, injection)
    if _build(value) != _build(state):
        raise ConfigurationError(
            "the cell must return a state built like the one it was given, "
            f"{_described(state)}, but got {_described(value)}"
        )
    return value


def _build(state: State) -> list[Any]:
    if isinstance(state, Tensor):
        return [state.dtype, state.shape]
    return [tuple, *((part.dtype, part.shape) for part in state)]


def _described(state: State) -> list[str]:
    if isinstance(state, Tensor):
        return [f"{state.dtype} {tuple(state.shape)}"]
    return ["tuple", *(f"{part.dtype} {tuple(part.shape)}" for part in state)]


def _solve_fixed(cell: Cell, state: State, injection: Any, spec: SolverSpec, rows: int) -> Solution:
    """Return the iterate after exactly max_steps evaluations; the host never waits."""
    stepper = Stepper(spec, state)
    size = batch_rows(state)
    for _ in range(spec.max_steps - 1):
        stepper.advance(_evaluate(cell, stepper.state, injection))
    fz = _evaluate(cell, stepper.state, injection)
    residual = relative_residual(stepper.state, fz)[:rows]
    stepper.advance(fz)
    state = map_state(lambda part: part[:rows], stepper.state)
    good = residual.isfinite()
    if stepper.algorithm.takes != "tensors":  # an elementwise step from finite states is finite
        good &= finite_rows(state)
    spent = torch.full_like(residual, spec.max_steps, dtype=torch.int32)
    return Solution(
        state=poisoned(state, ~good),
        status=(~good * int(Status.NONFINITE)).to(torch.uint8),
        steps=spent,
        residual=residual,
        cell_evaluations=spent.clone(),
        rows_evaluated=size * spec.max_steps,
    )


def _solve_adaptive(
    cell: Cell,
    state: State,
    injection: Any,
    spec: SolverSpec,
    rows: int,
    sizes: tuple[int, ...],
) -> Solution:
    """Return states stopped row by row at the tolerance."""
    ledger = _Ledger(state, rows)
    stepper = Stepper(spec, state)
    evaluated = 0
    for _ in range(spec.max_steps):
        fz = _evaluate(cell, stepper.state, injection)
        size = batch_rows(fz)
        evaluated += size
        ledger.enter(relative_residual(stepper.state, fz), fz, spec.tol)
        left = ledger.open_rows()
        count = left.shape[0]
        if count == 0:
            break
        smaller = padded_size(count, sizes)
        if smaller < size:
            kept = padded_rows(left, smaller)
            fz, injection = select_rows((fz, injection), kept)
            stepper.select(kept)
            ledger.select(kept, count)
        stepper.advance(fz)
    return ledger.close(stepper.state, evaluated)


class _Ledger:
    """Who is where, who has finished, and what they finished with."""

    def __init__(self, state: State, rows: int) -> None:
        first = leaves(state)[0]
        self.out = map_state(lambda part: torch.empty_like(part[:rows]), state)
        self.status = torch.zeros(rows, dtype=torch.uint8, device=first.device)
        self.steps = torch.zeros(rows, dtype=torch.int32, device=first.device)
        self.residual = torch.zeros(rows, device=first.device)
        # Place in the caller's batch of each row in hand; -1 for padding and finished rows.
        self.place = torch.arange(first.shape[0], device=first.device)
        self.place[rows:] = -1

    def open_rows(self) -> Tensor:  # shape: (R,), int64
        """Return which rows in hand are not finished."""
        return (self.place >= 0).nonzero().squeeze(1)

    def enter(self, residual: Tensor, fz: State, tol: float) -> None:
        """Record one evaluation of the rows in hand; those that pass or fail end with f(z)."""
        rows = self.open_rows()
        place, value = self.place[rows], residual[rows]
        self.residual[place] = value
        self.steps[place] += 1
        passed, failed = value <= tol, ~value.isfinite()
        self.status[place[passed]] = int(Status.CONVERGED)
        self.status[place[failed]] = int(Status.NONFINITE)
        self._write(fz, rows[passed | failed])

    def select(self, kept: Tensor, count: int) -> None:
        """Keep the given rows in hand, of which those from `count` on are padding."""
        self.place = self.place[kept]
        self.place[count:] = -1

    def close(self, state: State, evaluated: int) -> Solution:
        """Return the solution; rows still open end with `state`."""
        self._write(state, self.open_rows())
        bad = (self.status == int(Status.NONFINITE)) | ~finite_rows(self.out)
        self.status[bad] = int(Status.NONFINITE)
        return Solution(
            state=poisoned(self.out, bad),
            status=self.status,
            steps=self.steps,
            residual=self.residual,
            cell_evaluations=self.steps.clone(),
            rows_evaluated=evaluated,
        )

    def _write(self, state: State, rows: Tensor) -> None:
        place = self.place[rows]
        for whole, part in zip(leaves(self.out), leaves(state), strict=True):
            whole[place] = part[rows]
        self.place[rows] = -1


def _empty(state: State) -> Solution:
    first = leaves(state)[0]
    none = torch.zeros(0, dtype=torch.int32, device=first.device)
    return Solution(state, none.to(torch.uint8), none, none.float(), none.clone(), rows_evaluated=0)
