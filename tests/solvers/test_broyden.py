"""Broyden's method: unstable maps, restarts, unusable denominators, planned memory."""

from __future__ import annotations

import pytest
import torch

from deqcert.solvers import SolverSpec, Status, memory_bytes, solve
from deqcert.solvers.broyden import Broyden
from tests.solvers.problems import contraction, expansion, saturating


def test_unstable_fixed_points_are_found() -> None:
    problem = expansion(32, torch.float64)
    solution = solve(problem.cell, problem.state0, problem.injection, spec="broyden:25:1e-10")
    assert (solution.status == Status.CONVERGED).all()
    assert problem.answer is not None
    torch.testing.assert_close(solution.state, problem.answer, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("memory", [1, 2, 5])
def test_restarted_method_converges_on_contractions(memory: int) -> None:
    problem = contraction(32, torch.float64)
    spec = SolverSpec("broyden", 80, tol=1e-9, memory=memory)
    solution = solve(problem.cell, problem.state0, problem.injection, spec=spec)
    assert (solution.status == Status.CONVERGED).all()
    assert problem.answer is not None
    torch.testing.assert_close(solution.state, problem.answer, rtol=1e-7, atol=1e-7)


def test_an_unusable_denominator_is_a_picard_step_of_its_row_alone() -> None:
    # g(z) = x for every z: after the first step s the denominator 1 - s'g / ||s||^2 is zero.
    x = torch.ones(16, 5, dtype=torch.float64)
    moving = torch.zeros(16, 1, dtype=torch.float64)
    moving[3] = 1
    base = saturating(16, torch.float64)
    pad = torch.zeros(16, 15, dtype=torch.float64)

    def cell(z: torch.Tensor, injection: tuple[torch.Tensor, ...]) -> torch.Tensor:
        drift, y, flag = injection
        return torch.where(flag > 0, z + drift, base.cell(z, y))

    drift = torch.cat([x, pad], 1)
    inputs = (drift, base.injection, moving)
    got = solve(cell, torch.zeros_like(drift), inputs, spec="broyden:7")
    assert torch.equal(got.state[3], 7 * drift[3])
    calm = solve(base.cell, torch.zeros_like(drift), base.injection, spec="broyden:7").state
    others = torch.arange(16) != 3
    assert torch.equal(got.state[others], calm[others])
    assert (got.status == Status.MAX_STEPS).all()


def test_a_forgotten_history_is_a_fresh_start() -> None:
    algorithm = Broyden(SolverSpec("broyden", 30))
    z = torch.zeros(2, 3, dtype=torch.float64)
    history = algorithm.init(2, 3, z)
    step = torch.tensor([[1.0, 2.0, 3.0]] * 2, dtype=torch.float64)
    z = algorithm.step(history, z.clone(), z + step)
    # Row 0 sees the same residual again (denominator 0), row 1 half of it.
    value = z + step * torch.tensor([[1.0], [0.5]], dtype=torch.float64)
    z = algorithm.step(history, z.clone(), value)
    torch.testing.assert_close(z[0], 2 * step[0])
    torch.testing.assert_close(z[1], 2 * step[1])  # the secant of (g, g / 2) meets zero at 2 s
    assert history.inverse_norms[0][0] == 0
    assert history.inverse_norms[0][1] > 0
    assert history.inverse_norms[1].gt(0).all()


@pytest.mark.parametrize(("memory", "steps"), [(30, 30), (30, 5), (4, 5), (2, 3), (7, 1)])
def test_history_takes_the_planned_bytes(memory: int, steps: int) -> None:
    spec = SolverSpec("broyden", steps, memory=memory)
    algorithm = Broyden(spec)
    z = torch.zeros(32, 50)
    history = algorithm.init(32, 50, z)
    largest = 0
    for k in range(steps):
        z = algorithm.step(history, z, torch.full_like(z, float(k + 1)).cos_())
        tensors = [*history.steps, *history.inverse_norms]
        largest = max(largest, sum(t.nbytes for t in tensors))
    assert largest == memory_bytes(spec, 32, 50)


def test_half_the_memory_of_two_vectors_per_step() -> None:
    published = 2 * 30 * 61_440 * 4 * 400
    assert memory_bytes("broyden:30", 400, 61_440) < 0.49 * published
    assert memory_bytes("anderson:30", 400, 61_440) < 0.92 * (2 * 6 * 61_440 * 4 * 400)
    assert memory_bytes("anderson:3", 400, 61_440) < 0.42 * (2 * 6 * 61_440 * 4 * 400)
    assert memory_bytes("picard:30", 400, 61_440) == 0
