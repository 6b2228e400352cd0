"""Splitting: proved rates against measured ones, and one equilibrium for both methods."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deqcert.models.linear_maps import Matrix
from deqcert.models.mondeq_exact import Operator, dense_operator
from deqcert.solvers import solve
from deqcert.solvers.splitting import (
    choose_step,
    forward_backward,
    forward_backward_rate,
    peaceman_rachford,
    peaceman_rachford_rate,
    split_rate,
)

CASES = [(m, stretch, turn) for m in (0.5, 1.0, 20.0) for stretch in (0.0, 3.0) for turn in (0, 2)]


def operator(m: float, stretch: float, turn: float, n: int = 9) -> Operator:
    a, b = np.random.default_rng(7).standard_normal((2, n, n)) / math.sqrt(n)
    f = m * np.eye(n) + stretch * a.T @ a + turn * (b - b.T)
    return dense_operator(Matrix(torch.from_numpy(f)), m=m)


def weight(f: Operator) -> torch.Tensor:
    assert isinstance(f.whole, Matrix)
    return f.whole.weight


@pytest.mark.parametrize("case", CASES)
def test_forward_backward_contracts_at_its_proved_rate(case):
    f = operator(*case)
    for step in (f.step(), f.exact_step()):
        # Where nothing is cut off, the step is linear: its worst direction shows the rate exactly.
        linear = torch.eye(9, dtype=torch.float64) - step.size * weight(f)
        measured = float(torch.linalg.matrix_norm(linear, ord=2))
        assert measured <= step.rate < 1.0
        x, y, b = torch.randn(3, 500, 9, dtype=torch.float64)
        moved = [forward_backward(z, z @ weight(f).T - b, step.size) for z in (x, y)]
        ratio = (moved[0] - moved[1]).norm(dim=1) / (x - y).norm(dim=1)
        assert float(ratio.max()) <= step.rate + 1e-14  # the rounding of these very steps
    assert f.exact_step().rate <= f.step().rate + 1e-9
    assert f.step().rate <= math.sqrt(1 - (f.m / f.lipschitz) ** 2 + 1e-12)


@pytest.mark.parametrize("case", CASES)
def test_peaceman_rachford_contracts_at_its_proved_rate(case):
    f = operator(*case)
    step = f.reflection_step()
    eye = torch.eye(9, dtype=torch.float64)
    resolvent = torch.linalg.inv(eye + step.size * weight(f))
    measured = float(torch.linalg.matrix_norm(2 * resolvent - eye, ord=2))
    assert measured <= step.rate < 1.0
    assert measured <= peaceman_rachford_rate(step.size, m=f.m, lipschitz=f.lipschitz)
    x, y, b = torch.randn(3, 500, 9, dtype=torch.float64)
    moved = [peaceman_rachford(u, b, resolvent, step.size) for u in (x, y)]
    ratio = (moved[0] - moved[1]).norm(dim=1) / (x - y).norm(dim=1)
    assert float(ratio.max()) <= step.rate + 1e-14


@pytest.mark.parametrize("case", CASES)
def test_both_find_the_same_equilibrium(case):
    f = operator(*case)
    one, two = f.step(), f.reflection_step()
    resolvent = torch.linalg.inv(torch.eye(9, dtype=torch.float64) + two.size * weight(f))
    b = torch.randn(40, 9, dtype=torch.float64)

    def forward(z, b):
        return forward_backward(z, z @ weight(f).T - b, one.size)

    def reflect(u, b):
        return peaceman_rachford(u, b, resolvent, two.size)

    z = solve(forward, torch.zeros_like(b), b, spec="picard:20000:1e-13").state
    u = solve(reflect, torch.zeros_like(b), b, spec="picard:20000:1e-13").state
    w = torch.eye(9, dtype=torch.float64) - weight(f)
    torch.testing.assert_close(z, torch.relu(z @ w.T + b), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(torch.relu(u), z, rtol=1e-8, atol=1e-9)


def test_the_general_rates_are_least_where_they_should_be():
    m, lipschitz = 0.7, 3.1
    sizes = np.geomspace(1e-3, 10, 4001)
    forward = [forward_backward_rate(s, m=m, lipschitz=lipschitz) for s in sizes]
    assert sizes[np.argmin(forward)] == pytest.approx(m / lipschitz**2, rel=5e-3)
    assert min(forward) == pytest.approx(math.sqrt(1 - (m / lipschitz) ** 2), rel=1e-5)
    reflected = [peaceman_rachford_rate(s, m=m, lipschitz=lipschitz) for s in sizes]
    assert sizes[np.argmin(reflected)] == pytest.approx(1 / lipschitz, rel=5e-3)
    assert min(reflected) == pytest.approx(math.sqrt(1 - m / lipschitz), rel=1e-5)


def test_the_rate_from_both_parts_holds_for_any_pair():
    """Symmetric and skew parts that do not commute, scaled to meet their bounds."""
    generator = np.random.default_rng(8)
    for _ in range(300):
        n = int(generator.integers(2, 7))
        low, spread, skew = generator.uniform(0.1, 2, 3)
        a, b = generator.standard_normal((2, n, n))
        gram, turn = a.T @ a, b - b.T
        s = low * np.eye(n) + spread * gram / np.linalg.norm(gram, 2)
        f = s + skew * turn / np.linalg.norm(turn, 2)
        size = float(generator.uniform(0.01, 2))
        exact = np.linalg.norm(np.eye(n) - size * f, 2)
        assert exact <= split_rate(size, low=low, high=low + spread, skew=skew)


def test_the_rate_from_both_parts_is_met():
    """The block of a rotation at the weakest direction: no better bound from these numbers."""
    low, skew, size = 1.0, 0.8, 0.2
    f = np.array([[low, skew], [-skew, low]])
    exact = np.linalg.norm(np.eye(2) - size * f, 2)
    assert exact <= split_rate(size, low=low, high=low, skew=skew) <= 1.2 * exact


def test_a_step_is_always_found():
    rate = lambda size: forward_backward_rate(size, m=1e-3, lipschitz=50.0)  # noqa: E731
    step = choose_step(rate, m=1e-3, lipschitz=50.0)
    assert 0 < step.rate < 1
