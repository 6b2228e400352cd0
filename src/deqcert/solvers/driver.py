"""The loop every solver shares: evaluate, measure, freeze, compact, step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deqcert.errors import ConfigurationError
from deqcert.solvers.anderson import Anderson
from deqcert.solvers.batching import check_sizes, padded_rows, padded_size
from deqcert.solvers.broyden import Broyden
from deqcert.solvers.picard import Picard
from deqcert.solvers.reduce import row_dot
from deqcert.solvers.solution import Solution, Status
from deqcert.solvers.spec import SolverSpec
from deqcert.solvers.state import Layout, State, batch_rows, leaves, map_state, select_rows

Cell = Callable[[Any, Any], State]
"""One application of f: ``cell(state, injection)`` returns a state built like `state`."""

ALGORITHMS = {"picard": Picard, "anderson": Anderson, "broyden": Broyden}


@torch.no_grad()
def solve(
    cell: Cell,
    state0: State,  # tensors of shape (B, ...)
    injection: Any = None,  # tensors of shape (B, ...)
    *,
    spec: SolverSpec | str,
    sizes: Sequence[int] | None = None,
) -> Solution:
    """Return approximate fixed points z = cell(z, injection), each row solved by itself.

    Row i starts at row i of `state0`, stops on its own residual, fails alone, and comes out the
    same whatever the other rows do, up to the rounding of the cell's kernels (THEORY 1.1). With
    ``spec.tol == 0`` the k-th iterate is returned after exactly k cell evaluations, and nothing
    waits for the device; with a tolerance a row that passes it at z returns cell(z), and the rows
    left are packed into the smallest batch of `sizes` that holds them.

    Args:
        cell: The map; it must not mix rows.
        state0: Start of each row; a tensor or a tuple of tensors of one type, batch first.
        injection: What the cell needs besides the state: nested tuples, lists and dicts of
            batch-first tensors (other leaves are handed through).
        spec: The solver, as a `SolverSpec` or a string such as ``"anderson:30:1e-3"``.
        sizes: Batch sizes the cell may see; shorter batches are padded with repeated rows. None
            takes `batching.DEFAULT_SIZES`; ``(1,)`` never pads.

    Raises:
        ConfigurationError: The state is not batch first throughout, or the cell changes its build.
        UnknownNameError: The solver is unknown.
    """
    spec = SolverSpec.parse(spec)
    rows = batch_rows(state0)
    if rows == 0:
        return _empty(state0)
    allowed = check_sizes(sizes)
    size = padded_size(rows, allowed)
    if size != rows:
        repeats = padded_rows(torch.arange(rows, device=leaves(state0)[0].device), size)
        state0, injection = select_rows((state0, injection), repeats)
    if spec.tol == 0:
        return _solve_fixed(cell, state0, injection, spec, rows)
    return _solve_adaptive(cell, state0, injection, spec, rows, allowed)


def memory_bytes(spec: SolverSpec | str, rows: int, features: int, *, itemsize: int = 4) -> int:
    """Return the bytes of solver history for `rows` states of `features` numbers.

    The cell's own working memory, and the few states in hand (z, f(z), residual, next z), come on
    top. `itemsize` is the width of the state's number format in bytes.
    """
    spec = SolverSpec.parse(spec)
    return rows * ALGORITHMS[spec.name].bytes_per_row(spec, features, itemsize)


def relative_residual(z: State, fz: State) -> Tensor:  # shape: (B,), float32
    """Return ||f(z) - z|| / ||f(z)|| of each row, over all its tensors together."""
    change = scale = 0
    for a, b in zip(leaves(z), leaves(fz), strict=True):
        change = change + _squared(b - a)
        scale = scale + _squared(b)
    assert isinstance(change, Tensor)
    assert isinstance(scale, Tensor)
    limits = torch.finfo(torch.float32)
    ratio = change.sqrt() / scale.sqrt().clamp_min(limits.tiny)
    # f(z) = 0 gives a huge ratio, not a failure: only what is not finite itself may become inf.
    bounded = torch.where(change.isfinite() & scale.isfinite(), ratio.clamp_max(limits.max), ratio)
    return bounded.float()


def _squared(part: Tensor) -> Tensor:  # shape: (B,), float64
    flat = Layout.of(part).flatten(part)
    return row_dot(flat, flat)


class _Stepper:
    """Carries one algorithm through a solve: its memory, the current state, flat where needed."""

    def __init__(self, spec: SolverSpec, state: State) -> None:
        self.algorithm: Any = ALGORITHMS[spec.name](spec)
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
            rows, like = batch_rows(fz), leaves(fz)[0]
            self.memory = self.algorithm.init(rows, self.layout.features, like)
        value = self.layout.flatten(fz)
        if self.flat is None:
            # Steps overwrite z: the caller's start and what the cell may still hold are copied.
            self.flat = _own(self.layout.flatten(self.state), self.state)
        flat = self.algorithm.step(self.memory, self.flat, _own(value, self.flat))
        self.flat, self.state = flat, self.layout.unflatten(flat)

    def select(self, rows: Tensor) -> None:
        """Keep the given rows only."""
        self.state = select_rows(self.state, rows)
        self.flat = None if self.layout is None else self.layout.flatten(self.state)
        if self.memory is not None:
            self.memory = self.algorithm.select(self.memory, rows)


def _own(flat: Tensor, other: State) -> Tensor:
    """Return `flat`, copied if it shares memory with `other`."""
    place = flat.untyped_storage().data_ptr()
    shared = any(part.untyped_storage().data_ptr() == place for part in leaves(other))
    return flat.clone() if shared else flat


def _evaluate(cell: Cell, state: State, injection: Any) -> State:
    """Return cell(state, injection), built and typed like the state."""
    value = cell(state, injection)
    got, want = leaves(value), leaves(state)
    if [p.shape for p in got] != [p.shape for p in want]:
        raise ConfigurationError(
            "the cell must return a state of the shapes it was given, "
            f"{[tuple(p.shape) for p in want]}, but got {[tuple(p.shape) for p in got]}"
        )
    return value


def _solve_fixed(cell: Cell, state: State, injection: Any, spec: SolverSpec, rows: int) -> Solution:
    """Return the iterate after exactly max_steps evaluations; the host never waits."""
    stepper = _Stepper(spec, state)
    residual = None
    for k in range(spec.max_steps):
        fz = _evaluate(cell, stepper.state, injection)
        if k == spec.max_steps - 1:
            residual = relative_residual(stepper.state, fz)[:rows]
        stepper.advance(fz)
    assert residual is not None
    state = map_state(lambda part: part[:rows], stepper.state)
    size = batch_rows(stepper.state)
    bad = ~(residual.isfinite() & _finite(state))
    spent = torch.full_like(residual, spec.max_steps, dtype=torch.int32)
    return Solution(
        state=map_state(lambda part: _poison(part, bad), state),
        status=(bad * int(Status.NONFINITE)).to(torch.uint8),
        steps=spent,
        residual=residual,
        cell_evaluations=spent.clone(),
        rows_evaluated=size * spec.max_steps,
    )


def _finite(state: State) -> Tensor:  # shape: (B,), bool
    # A sum is finite unless a term is not (or it overflows): one pass, no mask of the state's size.
    sums = [part.flatten(1).sum(-1, dtype=_wide(part)) for part in leaves(state)]
    return torch.stack(sums).isfinite().all(0)


def _wide(part: Tensor) -> torch.dtype:
    return torch.float64 if part.dtype == torch.float64 else torch.float32


def _poison(part: Tensor, bad: Tensor) -> Tensor:
    return part.masked_fill(bad.view(-1, *[1] * (part.ndim - 1)), torch.nan)


def _solve_adaptive(
    cell: Cell,
    state: State,
    injection: Any,
    spec: SolverSpec,
    rows: int,
    sizes: tuple[int, ...],
) -> Solution:
    """Return states stopped row by row at the tolerance."""
    device = leaves(state)[0].device
    size = batch_rows(state)
    out = map_state(lambda part: torch.empty_like(part[:rows]), state)
    status = torch.zeros(rows, dtype=torch.uint8, device=device)
    steps = torch.zeros(rows, dtype=torch.int32, device=device)
    residual = torch.zeros(rows, device=device)
    # Place in the caller's batch of each row in hand; -1 for padding and rows already finished.
    place = torch.arange(size, device=device)
    place[rows:] = -1
    stepper = _Stepper(spec, state)
    evaluated = 0
    for k in range(spec.max_steps):
        fz = _evaluate(cell, stepper.state, injection)
        evaluated += size
        change = relative_residual(stepper.state, fz)
        open_ = place >= 0
        residual[place[open_]] = change[open_]
        steps[place[open_]] = k + 1
        done = open_ & (change <= spec.tol)
        bad = open_ & ~change.isfinite()
        status[place[done]] = int(Status.CONVERGED)
        status[place[bad]] = int(Status.NONFINITE)
        _write(out, place, done | bad, fz)
        place[done | bad] = -1
        left = (place >= 0).nonzero().squeeze(1)
        if left.shape[0] == 0:
            break
        smaller = padded_size(left.shape[0], sizes)
        if smaller < size:
            kept = padded_rows(left, smaller)
            fz, injection = select_rows((fz, injection), kept)
            stepper.select(kept)
            place = place[kept]
            place[left.shape[0] :] = -1
            size = smaller
        stepper.advance(fz)
    _write(out, place, place >= 0, stepper.state)
    bad = (status == int(Status.NONFINITE)) | ~_finite(out)
    status[bad] = int(Status.NONFINITE)
    out = map_state(lambda part: _poison(part, bad), out)
    return Solution(out, status, steps, residual, steps.clone(), evaluated)


def _write(out: State, place: Tensor, chosen: Tensor, value: State) -> None:
    """Copy the chosen rows of `value` to their places in the caller's batch."""
    source = chosen.nonzero().squeeze(1)
    if source.shape[0]:
        target = place[source]
        for whole, part in zip(leaves(out), leaves(value), strict=True):
            whole[target] = part[source].to(whole.dtype)


def _empty(state: State) -> Solution:
    device = leaves(state)[0].device
    none = torch.zeros(0, dtype=torch.int32, device=device)
    return Solution(
        state, none.to(torch.uint8), none, none.to(torch.float32), none.clone(), rows_evaluated=0
    )
