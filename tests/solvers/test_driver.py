"""The shared loop: tolerance, freezing, compaction, counts, and whose memory is whose."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deqcert.solvers import SolverSpec, Status, relative_residual, solve
from deqcert.solvers.batching import DEFAULT_SIZES, padded_size
from tests.solvers.problems import Counting, contraction, exact_arithmetic, multiscale


def graded(rows: int) -> tuple[Tensor, Tensor]:
    """Return the injection of z = rate z + 1: most rows are quick, a few slow."""
    rate = torch.full((rows, 1), 0.05)
    rate[:: max(1, rows // 10)] = 0.9
    return rate, torch.ones(rows, 8)


def cell(z: Tensor, injection: tuple[Tensor, Tensor]) -> Tensor:
    rate, x = injection
    return rate * z + x


def test_picard_stops_at_the_step_the_geometric_series_gives() -> None:
    rate, x = graded(64)
    solution = solve(cell, torch.zeros(64, 8), (rate, x), spec="picard:200:1e-3")
    # z_t = (1 - r^t) / (1 - r), so the relative residual at z_t is r^t (1 - r) / (1 - r^(t+1)).
    for r, steps, residual in zip(rate[:, 0], solution.steps, solution.residual, strict=True):
        r, t = float(r), int(steps) - 1
        values = [r**k * (1 - r) / (1 - r ** (k + 1)) for k in (t - 1, t)]
        assert values[1] <= 1e-3 < values[0]
        assert float(residual) == pytest.approx(values[1], rel=1e-3)
    assert (solution.status == Status.CONVERGED).all()
    assert torch.equal(solution.cell_evaluations, solution.steps)


def test_a_passing_row_returns_the_cell_of_its_last_state() -> None:
    rate, x = graded(16)
    solution = solve(cell, torch.zeros(16, 8), (rate, x), spec="picard:200:1e-2")
    for row in (0, 1):
        z = torch.zeros(1, 8)
        for _ in range(int(solution.steps[row])):
            z = cell(z, (rate[row], x[row]))
        torch.testing.assert_close(solution.state[row], z[0])


def test_finished_rows_leave_the_batch() -> None:
    counting = Counting(cell)
    solution = solve(counting, torch.zeros(400, 8), graded(400), spec="picard:200:1e-4")
    assert solution.rows_evaluated == sum(counting.sizes)
    assert set(counting.sizes) == {400, 16}
    assert counting.sizes == sorted(counting.sizes, reverse=True)
    assert counting.sizes.count(400) == int(solution.steps.min())
    assert len(counting.sizes) == int(solution.steps.max())
    assert solution.rows_evaluated < 0.2 * 400 * int(solution.steps.max())
    assert int(solution.cell_evaluations.sum()) <= solution.rows_evaluated


@pytest.mark.parametrize("name", ["picard", "anderson", "broyden"])
def test_every_batch_is_the_smallest_that_holds_the_open_rows(name: str) -> None:
    problem = exact_arithmetic(400)
    counting = Counting(problem.cell)
    spec = f"{name}:60:1e-4"
    solution = solve(counting, problem.state0, problem.injection, spec=spec)
    open_rows = [int((solution.steps > t).sum()) for t in range(int(solution.steps.max()))]
    assert counting.sizes == [padded_size(count, DEFAULT_SIZES) for count in open_rows]
    assert len(set(counting.sizes)) >= 4


@pytest.mark.parametrize("rows", [1, 7, 16, 33, 400])
@pytest.mark.parametrize("text", ["anderson:12", "anderson:12:1e-3"])
def test_the_cell_sees_listed_sizes_only(rows: int, text: str) -> None:
    problem = exact_arithmetic(rows)
    counting = Counting(problem.cell)
    solution = solve(counting, problem.state0, problem.injection, spec=text)
    assert set(counting.sizes) <= set(DEFAULT_SIZES)
    assert solution.rows_evaluated == sum(counting.sizes)
    assert solution.state.shape == problem.state0.shape
    assert solution.steps.shape == (rows,)


def test_sizes_may_be_chosen() -> None:
    problem = exact_arithmetic(7)
    counting = Counting(problem.cell)
    solve(counting, problem.state0, problem.injection, spec="picard:3", sizes=(1,))
    assert counting.sizes == [7, 7, 7]
    counting = Counting(problem.cell)
    solve(counting, problem.state0, problem.injection, spec="picard:2", sizes=(400, 8))
    assert counting.sizes == [8, 8]


def test_a_tolerance_out_of_reach_spends_all_steps() -> None:
    problem = contraction(16)
    far = solve(problem.cell, problem.state0, problem.injection, spec="picard:5:1e-9")
    fixed = solve(problem.cell, problem.state0, problem.injection, spec="picard:5")
    assert (far.status == Status.MAX_STEPS).all()
    assert (far.steps == 5).all()
    torch.testing.assert_close(far.state, fixed.state)
    torch.testing.assert_close(far.residual, fixed.residual)


def test_residual_is_that_of_the_last_state_evaluated() -> None:
    problem = multiscale(16)
    before = solve(problem.cell, problem.state0, problem.injection, spec="anderson:4").state
    after = solve(problem.cell, problem.state0, problem.injection, spec="anderson:5")
    value = problem.cell(before, problem.injection)
    torch.testing.assert_close(after.residual, relative_residual(before, value))
    flat = [torch.cat([p.flatten(1) for p in s], 1).double() for s in (before, value)]
    direct = (flat[1] - flat[0]).norm(dim=1) / flat[1].norm(dim=1)
    torch.testing.assert_close(after.residual, direct.float())


def test_zero_states_have_a_residual() -> None:
    zero, one = torch.zeros(3, 4), torch.ones(3, 4)
    assert relative_residual(zero, zero).tolist() == [0, 0, 0]
    assert (relative_residual(one, zero) > 1e30).all()
    assert relative_residual(one, zero).isfinite().all()


@pytest.mark.parametrize("name", ["picard", "anderson", "broyden"])
def test_a_start_at_the_fixed_point_needs_one_evaluation(name: str) -> None:
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    solution = solve(lambda z, x: x.clone(), x.clone(), x, spec=f"{name}:9:1e-6")
    assert (solution.steps == 1).all()
    assert (solution.residual == 0).all()
    assert torch.equal(solution.state, x)


@pytest.mark.parametrize("text", ["picard:4", "anderson:4", "broyden:4", "anderson:9:1e-2"])
def test_cells_that_hand_back_their_arguments(text: str) -> None:
    # The identity returns z itself: solvers that overwrite z must not overwrite f(z) with it.
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    kept = z.clone()
    assert torch.equal(solve(lambda z, _: z, z, spec=text).state, kept)
    assert torch.equal(z, kept)
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    copy = x.clone()
    assert torch.equal(solve(lambda z, x: x, z, x, spec=text).state, copy)
    assert torch.equal(x, copy)


def test_no_rows() -> None:
    solution = solve(
        cell, torch.zeros(0, 8), (torch.zeros(0, 1), torch.zeros(0, 8)), spec="picard:3"
    )
    assert solution.state.shape == (0, 8)
    assert solution.status.shape == solution.steps.shape == solution.residual.shape == (0,)
    assert solution.rows_evaluated == 0


def test_statuses_advise() -> None:
    assert [status.value for status in Status] == [0, 1, 2]
    assert all(status.advice.endswith(".") for status in Status)


def test_settings_travel_as_strings_or_values() -> None:
    problem = contraction(16)
    text, value = "anderson:6:1e-3,memory=3", SolverSpec("anderson", 6, tol=1e-3, memory=3)
    a = solve(problem.cell, problem.state0, problem.injection, spec=text)
    b = solve(problem.cell, problem.state0, problem.injection, spec=value)
    assert torch.equal(a.state, b.state)
