"""Anderson's weights: the minimiser, and singular systems row by row."""

from __future__ import annotations

import pytest
import torch

from deqcert.solvers import SolverSpec, Status, memory_bytes, solve
from deqcert.solvers.anderson import Anderson, mixing_weights
from tests.solvers.problems import expansion

EPS = torch.finfo(torch.float64).eps


def gram_of(residuals: torch.Tensor) -> torch.Tensor:
    return residuals @ residuals.mT


def test_weights_minimise_the_combined_residual() -> None:
    g = torch.Generator().manual_seed(0)
    residuals = torch.randn(50, 6, 40, generator=g, dtype=torch.float64)
    weights = mixing_weights(gram_of(residuals), 0.0, EPS)
    torch.testing.assert_close(weights.sum(1), torch.ones(50, dtype=torch.float64))
    # At the minimum under sum 1, the combined residual meets every difference at a right angle.
    combined = (weights[:, None] @ residuals)[:, 0]
    differences = residuals[:, 1:] - residuals[:, :1]
    assert (differences @ combined[:, :, None]).abs().max() < 1e-10


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_weights_of_a_row_do_not_depend_on_the_others(ridge: float) -> None:
    g = torch.Generator().manual_seed(1)
    gram = gram_of(torch.randn(33, 6, 40, generator=g, dtype=torch.float64))
    gram[4] = torch.nan
    gram[5] = 0
    gram[6] = 1
    whole = mixing_weights(gram, ridge, EPS)
    assert whole[4].isnan().all()
    for row in range(33):
        alone = mixing_weights(gram[row : row + 1], ridge, EPS)
        assert torch.equal(alone[0].nan_to_num(7), whole[row].nan_to_num(7))


def test_dependent_pairs_get_no_weight() -> None:
    g = torch.Generator().manual_seed(2)
    new, old = torch.randn(2, 1, 40, generator=g, dtype=torch.float64)
    both = mixing_weights(gram_of(torch.stack([new, old], 1)), 0.0, EPS)
    repeated = mixing_weights(gram_of(torch.stack([new, new, old, 2 * old], 1)), 0.0, EPS)
    torch.testing.assert_close(repeated[:, [0, 2]], both)
    assert repeated[0, 1] == repeated[0, 3] == 0


def test_a_vanished_residual_takes_the_newest_pair_alone() -> None:
    g = torch.Generator().manual_seed(3)
    residuals = torch.randn(4, 6, 40, generator=g, dtype=torch.float64)
    residuals[1, 0] = 0
    residuals[2] = 0
    weights = mixing_weights(gram_of(residuals), 1e-4, EPS)
    for row in (1, 2):
        assert weights[row].tolist() == [1, 0, 0, 0, 0, 0]
    assert (weights[[0, 3], 1:] != 0).all()


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_cell_is_solved_and_stays(ridge: float, dtype: torch.dtype) -> None:
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(4)).to(dtype)
    solution = solve(
        lambda z, x: x.clone(), torch.zeros_like(x), x, spec=SolverSpec("anderson", 12, ridge=ridge)
    )
    assert torch.equal(solution.state, x)
    assert (solution.status == Status.MAX_STEPS).all()
    assert (solution.residual == 0).all()


def test_repeated_residuals_do_no_harm() -> None:
    # f(z) = z + x has the same residual everywhere: any weights are optimal, the system is of rank
    # one, and there is no fixed point. The iterates are those of Picard.
    x = torch.ones(16, 5)
    solution = solve(
        lambda z, x: z + x, torch.zeros(16, 5), x, spec=SolverSpec("anderson", 9, ridge=0.0)
    )
    assert torch.equal(solution.state, 9 * x)
    assert (solution.status == Status.MAX_STEPS).all()


def test_more_pairs_than_dimensions_still_converge() -> None:
    problem = expansion(32, torch.float64)
    spec = SolverSpec("anderson", 40, tol=1e-9, memory=8, ridge=0.0)
    solution = solve(problem.cell, problem.state0, problem.injection, spec=spec)
    assert (solution.status == Status.CONVERGED).all()
    assert problem.answer is not None
    torch.testing.assert_close(solution.state, problem.answer, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("memory", "steps"), [(6, 30), (6, 3), (1, 5), (4, 1)])
def test_history_takes_the_planned_bytes(memory: int, steps: int) -> None:
    spec = SolverSpec("anderson", steps, memory=memory)
    algorithm = Anderson(spec)
    z = [torch.zeros(32, 30), torch.zeros(32, 20)]
    history = algorithm.init(32, 50, z[0])
    for k in range(steps):
        z = algorithm.step(history, z, [torch.full_like(p, float(k + 1)).cos_() for p in z])
    points = [part for pair in history.points for part in pair]
    tensors = [t for t in (*points, history.residuals, history.gram) if t is not None]
    assert sum(t.nbytes for t in tensors) == memory_bytes(spec, 32, 50)
    assert len({t.data_ptr() for t in tensors}) == len(tensors)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_state_of_several_tensors_is_solved_like_one(memory_format: torch.memory_format) -> None:
    """The weights come from all tensors together: the state cut in two gives the same iterates."""
    g = torch.Generator().manual_seed(5)
    weight = torch.randn(24, 24, generator=g, dtype=torch.float64) / 12
    x = torch.randn(32, 24, generator=g, dtype=torch.float64)

    def whole(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z @ weight + x)

    def cut(z: tuple[torch.Tensor, ...], x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return apart(whole(torch.cat([part.flatten(1) for part in z], 1), x))

    def apart(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = z[:, :16].reshape(32, 4, 2, 2).contiguous(memory_format=memory_format)
        return first, z[:, 16:]

    one = solve(whole, torch.zeros_like(x), x, spec="anderson:9")
    two = solve(cut, apart(torch.zeros_like(x)), x, spec="anderson:9")
    assert isinstance(one.state, torch.Tensor)
    for got, want in zip(two.state, apart(one.state), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_half_precision_converges_as_far_as_it_can_write() -> None:
    """With weights, residuals and sums in float32 only the state itself is rounded."""
    g = torch.Generator().manual_seed(6)
    weight = torch.randn(64, 64, generator=g) / 12
    x = torch.randn(64, 64, generator=g)

    def cell(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z.float() @ weight + x).to(z.dtype)

    exact = solve(cell, torch.zeros_like(x), x, spec="anderson:40").state
    half = solve(cell, torch.zeros_like(x).bfloat16(), x, spec="anderson:40").state
    assert isinstance(exact, torch.Tensor)
    assert isinstance(half, torch.Tensor)
    # Rounding to 8 bits moves a number by up to 2^-9 of itself, and the solution by a few times it.
    distance = (half.float() - exact).norm(dim=1) / exact.norm(dim=1)
    assert distance.max() < 4 * 2**-9
