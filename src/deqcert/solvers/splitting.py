"""Operator splitting: solve 0 in F(z) - b + N(z), F strongly monotone, N the normal cone of z >= 0.

z = relu(W z + b) is this problem for F = I - W (Winston, Kolter 2020). Both methods here are maps
whose fixed point gives z, so that every fixed-point solver runs them, stopping row by row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A step size and the contraction factor it is proved to have.

    Attributes:
        size: Step size, > 0.
        rate: Upper bound of the factor by which each step shrinks distances, in (0, 1).
    """

    size: float
    rate: float


def forward_backward(
    z: Tensor,  # (B, ...)
    residual: Tensor,  # (B, ...): F(z) - b
    size: float,
) -> Tensor:  # (B, ...)
    """Return relu(z - size (F(z) - b)); its fixed point is z*."""
    return torch.relu(z - size * residual)


def peaceman_rachford(
    u: Tensor,  # (B, n)
    bias: Tensor,  # (B, n)
    resolvent: Tensor,  # (n, n): (I + size F)^-1
    size: float,
) -> Tensor:  # (B, n)
    """Return both reflections of u; z* = relu(u*) at the fixed point u*.

    The reflected projection on z >= 0 is abs, so the state needs no second part.
    """
    reflected = u.abs()
    return 2.0 * (reflected + size * bias) @ resolvent.T - reflected


def forward_backward_rate(size: float, *, m: float, lipschitz: float) -> float:
    """Return the rate of a forward-backward step for any F with these constants.

    sqrt(1 - 2 size m + size^2 L^2) (Ryu, Boyd 2016, section 5.1); below 1 for size < 2 m / L^2 and
    least, sqrt(1 - m^2 / L^2), at m / L^2.
    """
    square = (size * lipschitz) ** 2
    # Near zero the subtraction leaves rounding alone, which must not make the rate too small.
    slack = 2.0**-50 * (1.0 + 2.0 * size * m + square)
    return math.sqrt(max(0.0, 1.0 - 2.0 * size * m + square) + slack)


def split_rate(size: float, *, low: float, high: float, skew: float) -> float:
    """Return an upper bound of ||I - size (S + K)||, low I <= S <= high I, K = -K', ||K|| <= skew.

    For a unit vector x with x'Sx = s, ||S x||^2 <= (low + high) s - low high =: t^2 (the difference
    is x'(S - low)(high - S)x), so ||x - size F x||^2 <= 1 - 2 size s + size^2 (t + skew)^2, in t a
    parabola on [low, high].
    """
    curve = size**2 - 2.0 * size / (low + high)
    ends = [low, high]
    if curve < 0:
        ends.append(min(max(-(size**2) * skew / curve, low), high))

    def square(t: float) -> float:
        s = (t * t + low * high) / (low + high)
        return 1.0 - 2.0 * size * s + (size * (t + skew)) ** 2

    # The slack covers the rounding here and that of where the parabola peaks.
    return (max(0.0, *map(square, ends)) + 2.0**-40) ** 0.5


def peaceman_rachford_rate(size: float, *, m: float, lipschitz: float) -> float:
    """Return the rate of a Peaceman-Rachford step for any F with these constants.

    sqrt(1 - 4 size m / (1 + size L)^2) (Ryu, Boyd 2016, section 5.2); below 1 for every size and
    least, sqrt(1 - m / L), at 1 / L.
    """
    gain = 4.0 * size * m / (1.0 + size * lipschitz) ** 2
    return math.sqrt(max(0.0, 1.0 - gain) + 2.0**-50)


def choose_step(
    rate: Callable[[float], float], *, m: float, lipschitz: float, points: int = 32
) -> Step:
    """Return the step of the lowest proved rate among sizes from m / L^2 to 1 / m.

    Args:
        rate: Upper bound of the contraction factor at a step size.
        m: Strong monotonicity of F, > 0.
        lipschitz: Upper bound of its Lipschitz constant, >= m.
        points: Sizes tried, >= 2.
    """
    low, high = m / lipschitz**2, 1.0 / m
    ratio = (high / low) ** (1.0 / (points - 1))
    steps = (Step(size, rate(size)) for size in (low * ratio**k for k in range(points)))
    return min(steps, key=lambda step: step.rate)
