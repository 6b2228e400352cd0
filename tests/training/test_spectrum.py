"""Spectral radii and the Jacobian penalty against eigenvalues and traces known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deqcert.models import EquilibriumModel, build, jacobian_penalty
from deqcert.solvers import SolverSpec, State, solve
from deqcert.training.spectrum import estimate_spectral_radius
from tests.training.small import ScalarModel


class LinearModel(EquilibriumModel):
    """f(z) = A z + x for images of as many pixels as A has rows."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(num_classes=2, input_shape=(1, 1, len(matrix)))
        self.matrix = nn.Parameter(matrix)

    def inject(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def initial_state(self, injection: Any) -> State:
        return torch.zeros_like(injection)

    def cell(self, state: Any, injection: Any) -> State:
        return state @ self.matrix.T + injection

    def classify(self, state: Any) -> Tensor:
        return state[:, :2]


def test_a_scalar_cell_has_its_slope():
    found = estimate_spectral_radius(ScalarModel(slope=-0.7).eval(), torch.rand(3, 1, 1, 1))
    torch.testing.assert_close(found, torch.full((3,), 0.7))


def test_complex_pairs_do_not_upset_it():
    angle = torch.tensor(0.9)
    turn = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
    )
    found = estimate_spectral_radius(LinearModel(0.8 * turn).eval(), torch.rand(4, 1, 1, 2))
    torch.testing.assert_close(found, torch.full((4,), 0.8))


def test_it_is_near_the_largest_eigenvalue_of_a_matrix_that_is_not_normal():
    generator = torch.Generator().manual_seed(4)
    matrix = torch.randn(12, 12, generator=generator)
    truth = np.abs(np.linalg.eigvals(matrix.numpy())).max()
    matrix = matrix * (0.9 / float(truth))
    assert float(torch.linalg.matrix_norm(matrix, 2)) > 1.2, "the norm is no substitute"
    found = estimate_spectral_radius(
        LinearModel(matrix).eval(), torch.rand(5, 1, 1, 12), iterations=400
    )
    torch.testing.assert_close(found, torch.full((5,), 0.9), rtol=0.03, atol=0.0)


def test_a_contracting_cell_is_seen_as_one_and_rows_do_not_notice_each_other():
    torch.manual_seed(0)
    model = build("mdeq-digits", channels=(8, 8), expansion=1, groups=1).eval()
    images = torch.rand(3, 1, 8, 8)
    found = estimate_spectral_radius(model, images)
    with torch.no_grad():
        for row in range(3):
            x = images[row : row + 1]
            injection = model.inject(x)
            spec = SolverSpec.parse("anderson:60:1e-5")
            state = solve(model.cell, model.initial_state(injection), injection, spec=spec).state
            truth = np.abs(np.linalg.eigvals(jacobian(model, state, injection))).max()
            # Power iteration has not settled after 40 products where eigenvalues lie close.
            assert float(found[row]) == pytest.approx(truth, rel=0.1)


def jacobian(model: EquilibriumModel, state: State, injection: Any) -> np.ndarray:
    """The whole Jacobian of the cell at one row's state, resolutions joined."""
    assert isinstance(state, tuple)
    sizes = [part.numel() for part in state]
    shapes = [part.shape for part in state]

    def flat(z: Tensor) -> Tensor:
        parts = tuple(p.view(s) for p, s in zip(z.split(sizes), shapes, strict=True))
        out = model.cell(parts, injection)
        return torch.cat([p.flatten() for p in out])

    whole = torch.cat([part.flatten() for part in state])
    return torch.autograd.functional.jacobian(flat, whole).numpy()  # pyright: ignore


def test_the_penalty_is_the_trace_of_the_gram_matrix_of_the_jacobian():
    """E ||v'J||^2 = tr(J J'); 2,000 probes bring the mean within 3 standard errors."""
    torch.manual_seed(0)
    model = build("mdeq-digits", channels=(4, 4), expansion=1, groups=1).eval()
    with torch.no_grad():
        injection = model.inject(torch.rand(1, 1, 8, 8))
        state = model.cell(model.initial_state(injection), injection)
        whole = jacobian(model, state, injection)
    gram = whole @ whole.T
    truth = np.trace(gram) / len(whole)
    probes = 2_000
    generator = torch.Generator().manual_seed(1)
    total = sum(
        float(jacobian_penalty(model, state, injection, probes=100, generator=generator).detach())
        for _ in range(probes // 100)
    )
    # Var v'Gv = 2 tr(G^2) for Gaussian v.
    error = np.sqrt(2 * np.trace(gram @ gram) / probes) / len(whole)
    assert abs(total / (probes // 100) - truth) < 3 * error
    assert error < 0.1 * truth
