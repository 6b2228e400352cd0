"""Solving many rows so that none notices its neighbours (THEORY 1.1).

Kernels round differently for some batch shapes, tiny and odd ones above all. Rows are therefore
computed in a few even batch sizes, short batches padded and the padding cut off again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from deqcert.errors import ConfigurationError
from deqcert.models.fast_part import computes_rows_alone
from deqcert.models.trees import leaves
from deqcert.solvers import Solution, SolverSpec, State, map_tree, select_rows, solve
from deqcert.solvers.row_chunks import in_threads

if TYPE_CHECKING:
    from deqcert.models.equilibrium import EquilibriumModel

Made = TypeVar("Made")

BATCH_SIZES = (16, 32, 64, 96, 128, 192, 256, 320, 400)
"""The batch sizes rows are computed in; longer batches are cut into chunks of the last."""


def training_sizes(rows: int) -> tuple[int, ...]:
    """Return batch sizes for a differentiable solve of `rows` rows, which needs no padding.

    Finished rows may still drop out of it, at the same few sizes as elsewhere.
    """
    return (*(size for size in BATCH_SIZES if size < rows), rows)


@torch.no_grad()
def solve_rows(
    model: EquilibriumModel,
    x: Tensor,  # (batch, C, H, W)
    spec: SolverSpec | str,
    state0: State | None = None,  # (batch, ...) or a tuple of such
    *,
    sizes: Sequence[int] = BATCH_SIZES,
) -> tuple[Tensor, Solution]:  # (batch, classes), solution of the same rows
    """Solve and classify a batch without gradients, in fixed batch sizes.

    Where the model computes rows by fast parts, each of PyTorch's threads takes a share of the rows
    through the whole solve: threads that meet after every layer wait for each other, and those of
    PyTorch's own pool do so actively, at the cost of the ones that compute.

    Args:
        model: The model, in eval mode.
        x: Images; padded to the next of `sizes`, cut into chunks above the largest.
        spec: The solver; with `exits` each row stops at the first whose lead it passes, and the
            solution's state is empty: no state is kept past an exit.
        state0: Start of every row; None means the model's own.
        sizes: Ascending batch sizes the hardware may see.

    Returns:
        Logits and the `Solution`, both with exactly the rows of `x`. `rows_evaluated` counts the
        padding too, since the hardware does compute it.

    Raises:
        ConfigurationError: `x` has no rows, `state0` another number of rows, or `model` is in
            training mode.
    """
    spec = SolverSpec.parse(spec)
    count = x.shape[0]
    if model.training:
        raise ConfigurationError("a model must be in eval mode to be solved row by row")
    if count == 0:
        raise ConfigurationError("a solve needs at least 1 row, but got 0")
    if state0 is not None and any(part.shape[0] != count for part in leaves(state0)):
        rows = leaves(state0)[0].shape[0]
        raise ConfigurationError(f"state0 must have {count} rows like the images, but has {rows}")
    if spec.exits:
        return _solve_to_exits(model, x, spec, state0, sizes)

    def solved(part: slice) -> tuple[Tensor, Solution]:
        return _solve_chunk(model, x[part], spec, _taken(state0, part), sizes)

    return _joined(_in_shares(model, x, sizes, solved))


def top_two(logits: Tensor) -> tuple[Tensor, Tensor]:  # (batch,) float64, (batch, 2) int64
    """Return the lead of the largest logit over the next, and the classes of the two.

    Raises:
        ConfigurationError: There is one class.
    """
    if logits.shape[1] == 1:
        raise ConfigurationError("a classifier needs at least 2 classes, but the model gives 1")
    top, order = logits.double().topk(2, dim=1)
    return top[:, 0] - top[:, 1], order


@torch.no_grad()
def start_rows(
    model: EquilibriumModel,
    x: Tensor,  # (batch, C, H, W)
    start: Callable[[Any], State],
    *,
    sizes: Sequence[int] = BATCH_SIZES,
) -> tuple[Tensor, State]:  # (batch, classes), (batch, ...) or a tuple of such
    """Return the logits of the states that `start` makes of the injections, and these states.

    No cell is evaluated. Batches are cut and padded as in `solve_rows`.
    """
    logits, states = [], []
    for low in range(0, len(x), sizes[-1]):
        chunk = x[low : low + sizes[-1]]
        count = len(chunk)
        state = start(model.inject(_pad(chunk, next(size for size in sizes if size >= count))))
        logits.append(model.classify(state)[:count])
        states.append(_cut(state, 0, count))
    return torch.cat(logits), _join_states(states)


def _solve_to_exits(
    model: EquilibriumModel,
    x: Tensor,  # (batch, C, H, W)
    spec: SolverSpec,
    state0: State | None,
    sizes: Sequence[int],
) -> tuple[Tensor, Solution]:
    """Take the steps up to each exit, and go on with the rows whose lead does not pass it.

    Picard steps have no memory, so each part goes on as if the solve had not stopped. All rows meet
    at an exit, so that those that go on fill batches again; only their states are kept.
    """
    at = (0, *(steps for steps, _ in spec.exits), spec.max_steps)
    parts = [dataclasses.replace(spec, max_steps=b - a, exits=()) for a, b in pairwise(at)]
    leads = [lead for _, lead in spec.exits]
    rows = torch.arange(len(x), device=x.device)
    logits, solution, going, state = _to_exit(model, x, parts[0], state0, sizes, leads[0])
    clearance = going.distance
    for part, threshold in zip(parts[1:], (*leads[1:], None), strict=True):
        rows = rows[going.rows]
        if not len(rows):
            break
        some, further, going, state = _to_exit(model, x[rows], part, state, sizes, threshold)
        logits = logits.index_copy(0, rows, some)
        solution = solution.continued(rows, further)
        clearance[rows] = torch.minimum(clearance[rows], going.distance)
    return logits, dataclasses.replace(solution, clearance=clearance)


def _to_exit(
    model: EquilibriumModel,
    x: Tensor,  # (batch, C, H, W)
    spec: SolverSpec,
    state0: State | None,
    sizes: Sequence[int],
    threshold: float | None,
) -> tuple[Tensor, Solution, _Going, State]:
    """Solve as `solve_rows`; return which rows go on, too, and the states of these alone."""

    def solved(part: slice) -> tuple[Tensor, Solution, _Going, State]:
        logits, solution = _solve_chunk(model, x[part], spec, _taken(state0, part), sizes)
        going = _Going.at(logits, threshold)
        state = select_rows(solution.state, going.rows)
        return logits, dataclasses.replace(solution, state=()), going, state

    logits, solutions, goings, states = zip(*_in_shares(model, x, sizes, solved), strict=True)
    firsts = accumulate((len(part) for part in logits), initial=0)
    going = _Going(
        rows=torch.cat([low + g.rows for low, g in zip(firsts, goings, strict=False)]),
        distance=torch.cat([g.distance for g in goings]),
    )
    return *_joined(list(zip(logits, solutions, strict=True))), going, _join_states(states)


@dataclass(frozen=True)
class _Going:
    """What an exit decides.

    Attributes:
        rows: The rows that go on, int64; one that failed has no lead, and ends here.
        distance: How far the lead of each row is from the threshold, (batch,) float64.
    """

    rows: Tensor
    distance: Tensor

    @classmethod
    def at(cls, logits: Tensor, threshold: float | None) -> _Going:
        """Decide by leads; without a threshold all rows end."""
        lead, _ = top_two(logits)
        if threshold is None:
            none = torch.zeros(0, dtype=torch.int64, device=lead.device)
            return cls(none, torch.full_like(lead, torch.inf))
        return cls((lead <= threshold).nonzero().squeeze(1), (lead - threshold).abs())


def _solve_chunk(
    model: EquilibriumModel,
    x: Tensor,  # (batch, C, H, W), at most sizes[-1] rows
    spec: SolverSpec,
    state0: State | None,
    sizes: Sequence[int],
) -> tuple[Tensor, Solution]:
    count = x.shape[0]
    size = next(size for size in sizes if size >= count)

    def solved(inputs: Any) -> tuple[Any, ...]:
        images, start = inputs
        return _solve_padded(model, images, start, spec, size, sizes)

    def head(part: Tensor) -> Tensor:
        return part[:count]

    if spec.tol > 0:
        logits, *rest = solved((x, state0))
        return logits, Solution(*rest)
    # Which operations it is, is known beforehand: those of a whole batch, which may be recorded.
    whole = _pad(x, size), map_tree(lambda part: _pad(part, size), state0)
    if model.recorded_solves is None:
        logits, *rest = solved(whole)
    else:
        logits, *rest = model.recorded_solves(model, (spec, *sizes), solved, whole)
    solution = Solution(*rest)
    return (logits, solution) if count == size else (logits[:count], solution.mapped(head))


def _solve_padded(
    model: EquilibriumModel,
    x: Tensor,  # (batch, C, H, W), at most `size` rows
    state0: State | None,
    spec: SolverSpec,
    size: int,
    sizes: Sequence[int],
) -> tuple[Any, ...]:  # logits, then the fields of `Solution`
    count = x.shape[0]
    # The solver sees the real rows alone and pads each cell evaluation itself, so that padding
    # neither takes steps of its own nor keeps a finished batch running.
    injection = _cut(model.inject(_pad(x, size)), 0, count)
    if state0 is None:
        state, first = model.initial_state(injection), model.first_step
    else:
        state, first = state0, None
    solution = solve(model.cell, state, injection, spec=spec, sizes=tuple(sizes), first=first)
    logits = model.classify(map_tree(lambda part: _pad(part, size), solution.state))
    s = solution
    fields = s.state, s.status, s.steps, s.residual, s.cell_evaluations, s.rows_evaluated
    return logits[:count], *fields


def _in_shares(
    model: EquilibriumModel, x: Tensor, sizes: Sequence[int], work: Callable[[slice], Made]
) -> list[Made]:
    """Return the work on each share of the rows: in threads where the model computes rows alone."""
    threads = torch.get_num_threads()
    if threads > 1 and not computes_rows_alone(model, x):
        threads = 1
    step = _share(len(x), threads, sizes)
    parts = [slice(low, low + step) for low in range(0, len(x), step)]
    if threads > 1 and len(parts) > 1:
        return in_threads(work, parts)
    return [work(part) for part in parts]


def _share(rows: int, threads: int, sizes: Sequence[int]) -> int:
    """Return how many rows a thread takes at once: the largest size by which all are done in time.

    Time is counted in rows, padding included, and may be a twentieth longer than it could be: few
    rows at once take longer each. A thread by itself takes the largest, whatever the rows.

    >>> _share(400, 1, BATCH_SIZES), _share(400, 2, BATCH_SIZES), _share(2000, 2, BATCH_SIZES)
    (400, 192, 320)
    """
    if threads == 1:
        return sizes[-1]

    def longest(size: int) -> int:
        whole, rest = divmod(rows, size)
        busy = [size * (whole // threads + (k < whole % threads)) for k in range(threads)]
        if rest:
            busy[-1] += next(padded for padded in sizes if padded >= rest)
        return max(busy)

    in_time = 1.05 * min(map(longest, sizes))
    return max(size for size in sizes if longest(size) <= in_time)


def _pad(rows: Tensor, size: int) -> Tensor:  # (count, ...) -> (size, ...)
    missing = size - rows.shape[0]
    # A copy of a real row is as ordinary as padding gets: no zeros to divide by in a normalisation.
    return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])]) if missing else rows


def _cut(tree: Any, low: int, high: int) -> Any:
    return map_tree(lambda part: part[low:high], tree)


def _taken(state0: State | None, part: slice) -> State | None:
    return None if state0 is None else _cut(state0, part.start, part.stop)


def _joined(parts: Sequence[tuple[Tensor, Solution]]) -> tuple[Tensor, Solution]:
    if len(parts) == 1:
        return parts[0]
    logits, solutions = zip(*parts, strict=True)
    return torch.cat(logits), _join(solutions)


def _join(solutions: Sequence[Solution]) -> Solution:
    return Solution(
        state=_join_states([s.state for s in solutions]),
        status=torch.cat([s.status for s in solutions]),
        steps=torch.cat([s.steps for s in solutions]),
        residual=torch.cat([s.residual for s in solutions]),
        cell_evaluations=torch.cat([s.cell_evaluations for s in solutions]),
        rows_evaluated=sum(s.rows_evaluated for s in solutions),
    )


def _join_states(states: Sequence[State]) -> State:
    if len(states) == 1:
        return states[0]
    parts = tuple(torch.cat(part) for part in zip(*map(leaves, states), strict=True))
    return parts[0] if isinstance(states[0], Tensor) else parts
