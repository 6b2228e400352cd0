"""Fixed-point problems the solver tests share, and plain reimplementations to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from deqcert.solvers import State


@dataclass(frozen=True)
class Problem:
    """A cell with its start and injection; `answer` where the fixed point is known."""

    cell: Callable[[Any, Any], State]
    state0: State
    injection: Any
    answer: Tensor | None = None


def _affine(eigenvalues: Tensor, rows: int, dtype: torch.dtype, seed: int) -> Problem:
    """z = A z + x with a symmetric A of the given eigenvalues; the answer by a direct solve."""
    g = torch.Generator().manual_seed(seed)
    n = eigenvalues.shape[0]
    basis, _ = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64))
    A = basis @ torch.diag(eigenvalues.double()) @ basis.T
    x = torch.randn(rows, n, generator=g, dtype=torch.float64)
    answer = torch.linalg.solve(torch.eye(n, dtype=torch.float64) - A, x.T).T
    weight = A.T.to(dtype)
    return Problem(
        cell=lambda z, x: z @ weight + x,
        state0=torch.zeros(rows, n, dtype=dtype),
        injection=x.to(dtype),
        answer=answer.to(dtype),
    )


def contraction(rows: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Problem:
    """A linear contraction of norm 0.7 in 12 dimensions."""
    return _affine(torch.linspace(-0.7, 0.6, 12), rows, dtype, seed)


def expansion(rows: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Problem:
    """An affine map of spectral radius 1.6: Picard diverges, the fixed point is unique."""
    return _affine(torch.tensor([-1.6, 0.4, 1.5, -0.3]), rows, dtype, seed)


def saturating(rows: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Problem:
    """z = tanh(W z + x), W of norm 0.9 in 20 dimensions, started away from zero."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(20, 20, generator=g, dtype=torch.float64)
    W = (0.9 * W / torch.linalg.matrix_norm(W, 2)).to(dtype)
    return Problem(
        cell=lambda z, x: torch.tanh(z @ W.T + x),
        state0=torch.randn(rows, 20, generator=g, dtype=torch.float64).to(dtype),
        injection=torch.randn(rows, 20, generator=g, dtype=torch.float64).to(dtype),
    )


def exact_arithmetic(rows: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Problem:
    """A contraction of single IEEE operations per number: its rows are bitwise independent.

    The rates differ from row to row, so that rows need different numbers of steps.
    """
    g = torch.Generator().manual_seed(seed)
    x = (0.5 * torch.randn(rows, 37, generator=g, dtype=torch.float64)).to(dtype)
    rate = (0.1 + 1.5 * torch.rand(rows, 1, generator=g, dtype=torch.float64)).to(dtype)

    def cell(z: Tensor, injection: dict[str, Tensor]) -> Tensor:
        moved = z.roll(1, dims=1) * injection["rate"]
        return moved / (z * z + 2) + injection["x"]

    return Problem(cell, torch.zeros(rows, 37, dtype=dtype), {"rate": rate, "x": x})


def multiscale(rows: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Problem:
    """A convolutional cell over two resolutions with GroupNorm; state and injection are tuples."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    inside, down, up, low = (
        0.1 * normal(8, 8, 3, 3),
        0.1 * normal(8, 8, 3, 3),
        0.2 * normal(8, 8, 1, 1),
        0.1 * normal(8, 8, 3, 3),
    )

    def cell(state: tuple[Tensor, Tensor], injection: tuple[Tensor, Any]) -> State:
        z, w = state
        x = injection[0]
        a = F.conv2d(z, inside, padding=1) + F.interpolate(F.conv2d(w, up), scale_factor=2)
        b = F.conv2d(w, low, padding=1) + F.conv2d(z, down, stride=2, padding=1)
        return torch.tanh(0.5 * F.group_norm(a + x, 4)), torch.tanh(0.5 * F.group_norm(b, 4))

    state0 = (torch.zeros(rows, 8, 6, 6, dtype=dtype), torch.zeros(rows, 8, 3, 3, dtype=dtype))
    return Problem(cell, state0, (3 * normal(rows, 8, 6, 6), None))


PROBLEMS: dict[str, Callable[..., Problem]] = {
    "contraction": contraction,
    "saturating": saturating,
    "exact_arithmetic": exact_arithmetic,
    "multiscale": multiscale,
}
"""Problems every solver converges on."""


class Counting:
    """A cell that counts its calls and remembers the batch sizes it saw."""

    def __init__(self, cell: Callable[[Any, Any], State]) -> None:
        self.cell = cell
        self.sizes: list[int] = []

    def __call__(self, state: State, injection: Any) -> State:
        first = state if isinstance(state, Tensor) else state[0]
        self.sizes.append(first.shape[0])
        return self.cell(state, injection)


def parts(state: State) -> tuple[Tensor, ...]:
    """Return the tensors of a state."""
    return (state,) if isinstance(state, Tensor) else state


def largest_gap(a: State, b: State) -> float:
    """Return the largest difference between two states."""
    return max(float((p - q).abs().max()) for p, q in zip(parts(a), parts(b), strict=True))


def naive_picard(f: Callable[[Tensor], Tensor], z: Tensor, steps: int, mixing: float) -> Tensor:
    """Damped Picard iteration of one vector."""
    for _ in range(steps):
        z = (1 - mixing) * z + mixing * f(z)
    return z


def naive_anderson(
    f: Callable[[Tensor], Tensor],
    z: Tensor,
    steps: int,
    *,
    memory: int,
    ridge: float,
    mixing: float,
) -> Tensor:
    """Anderson acceleration of one vector from the bordered system, Gram matrix rebuilt."""
    points, values = [], []
    for _ in range(steps):
        points, values = [*points, z][-memory:], [*values, f(z)][-memory:]
        X, V = torch.stack(points), torch.stack(values)
        R, n = V - X, len(points)
        system = torch.ones(n + 1, n + 1, dtype=z.dtype)
        system[0, 0] = 0
        system[1:, 1:] = R @ R.T + ridge * torch.eye(n, dtype=z.dtype)
        right = torch.zeros(n + 1, dtype=z.dtype)
        right[0] = 1
        share = torch.linalg.solve(system, right)[1:]
        z = mixing * (share @ V) + (1 - mixing) * (share @ X)
    return z


def naive_broyden(
    f: Callable[[Tensor], Tensor], z: Tensor, steps: int, *, memory: int, mixing: float
) -> Tensor:
    """Good Broyden of one vector with a dense inverse, reset to -I every memory + 1 steps."""
    H = -torch.eye(z.shape[0], dtype=z.dtype)
    g = f(z) - z
    for k in range(steps):
        s = -mixing * (H @ g)
        z = z + s
        if k + 1 == steps:
            break
        new = f(z) - z
        y = new - g
        if (k + 1) % (memory + 1) == 0:
            H = -torch.eye(z.shape[0], dtype=z.dtype)
        else:
            H = H + torch.outer(s - H @ y, s @ H) / (s @ H @ y)
        g = new
    return z
