"""The k-th iterate of every solver is what the textbook formulas give, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from deqcert.solvers import SolverSpec, solve
from tests.solvers.problems import (
    Counting,
    naive_anderson,
    naive_broyden,
    naive_picard,
    saturating,
)

STEPS = range(1, 9)
ROWS = 5
PROBLEM = saturating(ROWS, torch.float64, seed=3)


def reference(naive: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> Tensor:
    """Run a one-vector method on every row of the problem."""
    rows = []
    for start, x in zip(PROBLEM.state0, PROBLEM.injection, strict=True):
        rows.append(naive(lambda z, x=x: PROBLEM.cell(z[None], x[None])[0], start))
    return torch.stack(rows)


def iterate(spec: SolverSpec) -> Tensor:
    cell = Counting(PROBLEM.cell)
    solution = solve(cell, PROBLEM.state0, PROBLEM.injection, spec=spec, sizes=(1,))
    assert cell.sizes == [ROWS] * spec.max_steps
    return solution.state


@pytest.mark.parametrize("mixing", [1.0, 0.6])
@pytest.mark.parametrize("k", STEPS)
def test_picard(k: int, mixing: float) -> None:
    got = iterate(SolverSpec("picard", k, mixing=mixing))
    want = reference(lambda f, z: naive_picard(f, z, k, mixing))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("mixing", [1.0, 0.6])
@pytest.mark.parametrize("memory", [1, 2, 6])
@pytest.mark.parametrize("k", STEPS)
def test_anderson_solves_the_bordered_system(k: int, memory: int, mixing: float) -> None:
    got = iterate(SolverSpec("anderson", k, memory=memory, mixing=mixing))
    want = reference(lambda f, z: naive_anderson(f, z, k, memory=memory, ridge=1e-4, mixing=mixing))
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("mixing", [1.0, 0.6])
@pytest.mark.parametrize("memory", [1, 3, 30])
@pytest.mark.parametrize("k", STEPS)
def test_broyden_updates_the_inverse(k: int, memory: int, mixing: float) -> None:
    got = iterate(SolverSpec("broyden", k, memory=memory, mixing=mixing))
    want = reference(lambda f, z: naive_broyden(f, z, k, memory=memory, mixing=mixing))
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["picard", "anderson", "broyden"])
def test_first_iterate_is_one_application(name: str) -> None:
    got = iterate(SolverSpec(name, 1))
    torch.testing.assert_close(got, PROBLEM.cell(PROBLEM.state0, PROBLEM.injection))
