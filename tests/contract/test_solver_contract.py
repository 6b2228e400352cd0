"""What every solver owes: right answers, rows that mind their own business, honest accounts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from deqcert.solvers import Solution, Status, relative_residual, select_rows, solve
from tests.solvers.problems import (
    PROBLEMS,
    Counting,
    Problem,
    contraction,
    exact_arithmetic,
    largest_gap,
    multiscale,
    parts,
)

SOLVERS = ("picard", "anderson", "broyden")
BATCHES = (1, 7, 16, 400)

pytestmark = pytest.mark.parametrize("name", SOLVERS)


def run(problem: Problem, spec: str, rows: Tensor | None = None, **options: Any) -> Solution:
    """Solve the given rows of a problem, all of them by default."""
    state0, injection = problem.state0, problem.injection
    if rows is not None:
        state0, injection = select_rows((state0, injection), rows)
    return solve(problem.cell, state0, injection, spec=spec, **options)


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("options", ["", ",mixing=0.8"])
def test_converges_to_the_fixed_point(name: str, kind: str, options: str) -> None:
    problem = PROBLEMS[kind](16, torch.float64)
    solution = run(problem, f"{name}:300:1e-6{options}")
    assert (solution.status == Status.CONVERGED).all()
    assert (solution.residual <= 1e-6).all()
    value = problem.cell(solution.state, problem.injection)
    assert relative_residual(solution.state, value).max() <= 1e-5
    truth = problem.answer if problem.answer is not None else run(problem, "picard:500").state
    assert largest_gap(solution.state, truth) < 2e-5


@pytest.mark.parametrize("kind", PROBLEMS)
def test_k_steps_are_k_evaluations(name: str, kind: str) -> None:
    problem = PROBLEMS[kind](16)
    for k in (1, 2, 9):
        counting = Counting(problem.cell)
        solution = solve(counting, problem.state0, problem.injection, spec=f"{name}:{k}")
        assert counting.sizes == [16] * k
        assert solution.steps.tolist() == solution.cell_evaluations.tolist() == [k] * 16
        assert solution.rows_evaluated == 16 * k
        assert (solution.status == Status.MAX_STEPS).all()


@pytest.mark.parametrize("tolerance", ["", ":1e-4"])
def test_rows_are_bitwise_the_same_in_any_batch_and_place(name: str, tolerance: str) -> None:
    problem = exact_arithmetic(400)
    spec = f"{name}:12{tolerance}"
    whole = run(problem, spec)
    g = torch.Generator().manual_seed(0)
    for size in BATCHES:
        for _ in range(3):
            rows = torch.randperm(400, generator=g)[:size]
            got = run(problem, spec, rows)
            assert torch.equal(got.state, whole.state[rows])
            assert torch.equal(got.residual, whole.residual[rows])
            assert torch.equal(got.steps, whole.steps[rows])
            assert torch.equal(got.status, whole.status[rows])


@pytest.mark.parametrize("tolerance", ["", ":1e-3"])
def test_convolutional_rows_agree_in_any_batch_and_place(name: str, tolerance: str) -> None:
    problem = multiscale(400)
    spec = f"{name}:15{tolerance}"
    whole = run(problem, spec)
    g = torch.Generator().manual_seed(0)
    for size in BATCHES:
        rows = torch.randperm(400, generator=g)[:size]
        got = run(problem, spec, rows)
        want = whole.residual[rows]
        # Kernels may round another batch differently: a row within 1 % of the tolerance may then
        # stop a step apart.
        near = ((got.residual / 1e-3 - 1).abs() < 0.01) | ((want / 1e-3 - 1).abs() < 0.01)
        clear = ~near if tolerance else torch.ones_like(near)
        assert clear.float().mean() > 0.9 or size == 1
        assert torch.equal(got.steps[clear], whole.steps[rows][clear])
        assert torch.equal(got.status[clear], whole.status[rows][clear])
        state = tuple(part[rows][clear] for part in parts(whole.state))
        assert (
            not clear.any()
            or largest_gap(select_rows(got.state, clear.nonzero()[:, 0]), state) < 1e-4
        )


@pytest.mark.parametrize("tolerance", ["", ":1e-4"])
def test_neighbours_change_nothing(name: str, tolerance: str) -> None:
    base = exact_arithmetic(64)
    watched = torch.arange(64) % 2 == 0
    calm = run(base, f"{name}:14{tolerance}")
    neighbours = {
        "early": {"rate": torch.zeros(64, 1), "x": base.injection["x"]},
        "late": {"rate": torch.full((64, 1), 0.95), "x": 0.1 * base.injection["x"]},
        "nan": {"rate": torch.full((64, 1), torch.nan), "x": base.injection["x"]},
        "huge": {"rate": torch.full((64, 1), 3e38), "x": 1e30 * base.injection["x"]},
    }
    for kind, other in neighbours.items():
        injection = {
            key: torch.where(watched[:, None], base.injection[key], other[key]) for key in other
        }
        got = solve(base.cell, base.state0, injection, spec=f"{name}:14{tolerance}")
        assert torch.equal(got.state[watched], calm.state[watched]), kind
        assert torch.equal(got.steps[watched], calm.steps[watched]), kind
        assert torch.equal(got.residual[watched], calm.residual[watched]), kind
        assert torch.equal(got.status[watched], calm.status[watched]), kind


@pytest.mark.parametrize("tolerance", ["", ":1e-4"])
@pytest.mark.parametrize("kind", PROBLEMS)
def test_failed_rows_are_marked_and_never_answers(name: str, kind: str, tolerance: str) -> None:
    problem = PROBLEMS[kind](16)
    bad = torch.tensor([3, 11])
    state0 = tuple(part.clone() for part in parts(problem.state0))
    state0[-1][3].view(-1)[1] = torch.nan
    # Without a tolerance only the last evaluation is judged, and tanh would forgive infinity.
    state0[0][11].view(-1)[0] = torch.inf if tolerance else torch.nan
    single = isinstance(problem.state0, Tensor)
    counting = Counting(problem.cell)
    got = solve(
        counting, state0[0] if single else state0, problem.injection, spec=f"{name}:9{tolerance}"
    )
    others = torch.ones(16, dtype=torch.bool)
    others[bad] = False
    for part in parts(got.state):
        assert part[bad].isnan().all()
        assert part[others].isfinite().all()
    assert (got.status[others] != Status.NONFINITE).all()
    assert got.status[bad].tolist() == [Status.NONFINITE] * 2
    clean = run(problem, f"{name}:9{tolerance}")
    assert torch.equal(got.steps[others], clean.steps[others])
    assert (
        largest_gap(
            tuple(p[others] for p in parts(got.state)), tuple(p[others] for p in parts(clean.state))
        )
        < 1e-5
    )
    if tolerance:
        assert got.steps[bad].tolist() == [1, 1]


def test_growth_without_bound_is_a_failure_of_that_row(name: str) -> None:
    x = torch.ones(16, 4)
    power = torch.zeros(16, 1)
    power[5] = 1

    def cell(z: Tensor, injection: tuple[Tensor, Tensor]) -> Tensor:
        flag, y = injection
        return torch.where(flag > 0, torch.exp(z * z + 3), 0.5 * z + y)

    for tolerance in ("", ":1e-5"):
        got = solve(cell, torch.zeros(16, 4), (power, x), spec=f"{name}:60{tolerance}")
        assert got.status[5] == Status.NONFINITE
        others = torch.arange(16) != 5
        assert (got.status[others] != Status.NONFINITE).all()
        torch.testing.assert_close(got.state[others], 2 * x[others], rtol=1e-4, atol=1e-4)


def test_tuples_and_one_flat_tensor_are_the_same_problem(name: str) -> None:
    problem = multiscale(16, torch.float64)

    def flat_cell(z: Tensor, injection: Any) -> Tensor:
        pair = (z[:, :288].reshape(-1, 8, 6, 6), z[:, 288:].reshape(-1, 8, 3, 3))
        return torch.cat([part.flatten(1) for part in problem.cell(pair, injection)], dim=1)

    flat = solve(flat_cell, torch.zeros(16, 360).double(), problem.injection, spec=f"{name}:9")
    pair = run(problem, f"{name}:9")
    joined = torch.cat([part.flatten(1) for part in parts(pair.state)], dim=1)
    torch.testing.assert_close(joined, flat.state, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(pair.residual, flat.residual)


def test_memory_order_of_the_state_does_not_matter(name: str) -> None:
    problem = multiscale(16, torch.float64)
    last = tuple(p.contiguous(memory_format=torch.channels_last) for p in parts(problem.state0))

    def cell(state: Any, injection: Any) -> tuple[Tensor, ...]:
        value = parts(problem.cell(state, injection))
        return tuple(part.contiguous(memory_format=torch.channels_last) for part in value)

    got = solve(cell, last, problem.injection, spec=f"{name}:9")
    want = run(problem, f"{name}:9")
    assert largest_gap(got.state, want.state) < 1e-9


@pytest.mark.parametrize("tolerance", ["", ":1e-3"])
def test_arguments_are_left_alone_and_no_graph_is_built(name: str, tolerance: str) -> None:
    problem = contraction(30)
    state0 = torch.randn(30, 12, generator=torch.Generator().manual_seed(0), requires_grad=True)
    before, injection = state0.detach().clone(), problem.injection.clone()
    got = solve(problem.cell, state0, problem.injection, spec=f"{name}:7{tolerance}")
    assert torch.equal(state0.detach(), before)
    assert torch.equal(problem.injection, injection)
    assert isinstance(got.state, Tensor)
    assert not got.state.requires_grad
    assert got.status.dtype == torch.uint8
    assert got.steps.dtype == got.cell_evaluations.dtype == torch.int32
    assert got.residual.dtype == torch.float32
    again = solve(problem.cell, state0, problem.injection, spec=f"{name}:7{tolerance}")
    assert torch.equal(got.state, again.state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_every_precision_is_kept(name: str, dtype: torch.dtype) -> None:
    problem = contraction(16, dtype)
    got = run(problem, f"{name}:25")
    assert isinstance(got.state, Tensor)
    assert got.state.dtype == dtype
    assert problem.answer is not None
    gap = largest_gap(got.state.double(), problem.answer.double())
    assert gap < (0.1 if dtype == torch.bfloat16 else 2e-3)
