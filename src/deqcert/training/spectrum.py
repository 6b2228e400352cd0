"""How strongly the cell contracts at its fixed point: the spectral radius, estimated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deqcert.models import EquilibriumModel
from deqcert.solvers import SolverSpec, State, solve
from deqcert.solvers.state import leaves


def estimate_spectral_radius(
    model: EquilibriumModel,
    images: Tensor,  # (B, C, H, W)
    *,
    solver: SolverSpec | str = "anderson:60:1e-5",
    iterations: int = 40,
    seed: int = 0,
) -> Tensor:  # (B,), float32
    """Estimate the spectral radius of the cell's Jacobian at each image's fixed point.

    Power iteration on the transposed Jacobian (the same spectrum): the geometric mean of the growth
    of a random vector over the last half of the iterations, which complex pairs of eigenvalues do
    not upset. An estimate: it can fall short where the start has little share in the dominant
    direction or a second eigenvalue is close, and means nothing where the solve found no fixed
    point.

    Args:
        model: The model, in eval mode.
        images: The images, noisy ones as a rule.
        solver: How fixed points are found.
        iterations: Products with the Jacobian, >= 2.
        seed: Seed of the random vectors.
    """
    with torch.no_grad():
        injection = model.inject(images)
        start = model.initial_state(injection)
        found = solve(model.cell, start, injection, spec=SolverSpec.parse(solver)).state
    generator = torch.Generator().manual_seed(seed)
    at, out = _linearised(model, found, injection)
    vector = [torch.randn(part.shape, generator=generator).to(part) for part in at]
    growth = []
    for _ in range(iterations):
        before = _row_norms(vector)
        vector = [_scaled(part, 1.0 / before) for part in vector]
        pulled = torch.autograd.grad(out, at, vector, retain_graph=True, allow_unused=True)
        vector = [
            torch.zeros_like(part) if row is None else row
            for part, row in zip(at, pulled, strict=True)
        ]
        growth.append(_row_norms(vector).clamp_min(1e-30).log())
    return torch.stack(growth[iterations // 2 :]).mean(dim=0).exp().cpu()


def _linearised(
    model: EquilibriumModel, state: State, injection: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parts of `state`, and of the cell's value there with a graph back to them."""
    with torch.enable_grad():
        at = [part.detach().requires_grad_() for part in leaves(state)]
        out = leaves(model.cell(at[0] if isinstance(state, Tensor) else tuple(at), injection))
    return at, list(out)


def _row_norms(parts: list[Tensor]) -> Tensor:  # (B,)
    squares = torch.stack([part.flatten(1).square().sum(dim=1) for part in parts])
    return squares.sum(dim=0).sqrt().clamp_min(1e-30)


def _scaled(part: Tensor, by: Tensor) -> Tensor:  # (B, ...), (B,) -> (B, ...)
    return part * by.view(-1, *[1] * (part.ndim - 1))
