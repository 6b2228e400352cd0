"""Projected gradient ascent against a classifier, in L2 or Linf, or its smoothed version, in L2.

The smoothed attack is that of SmoothAdv (Salman et al. 2019): gradients of the logarithm of the
softmax averaged over m noisy copies, here with fresh noise in every step. Everything stays in
[0, 1]: a certificate speaks of any shift, but images are what can be predicted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deqcert.errors import ConfigurationError
from deqcert.models import EquilibriumModel, GradientSpec, equilibrium, iterates
from deqcert.solvers import SolverSpec
from deqcert.training.smooth_adv import soft_loss

Logits = Callable[[Tensor], Tensor]
"""Images (rows, C, H, W) -> logits (rows, classes), differentiable in the images."""

INSIDE = 1.0 - 1e-6
"""Shifts end at this share of their allowed length: a certified ball is open."""

_UNROLLED = 10
_HALVINGS = 50


def differentiable(
    model: EquilibriumModel, solver: SolverSpec, *, device: torch.device
) -> tuple[Logits, str]:
    """Return the classifier with gradients, and how they are taken.

    A short Picard solve is differentiated step by step, which is exact. Longer solves, and those
    with memory, take the implicit gradient at their last state: exact at a fixed point, else close.
    """
    solver = solver.plain  # which label a row keeps is no function to differentiate: all steps
    subject = copy.deepcopy(model).eval().float().to(device).requires_grad_(False)
    if solver.name == "picard" and solver.max_steps <= _UNROLLED and solver.tol == 0.0:
        steps, damping = solver.max_steps, 1.0 - solver.mixing

        def unrolled(x: Tensor) -> Tensor:
            states = iterates(subject, subject.inject(x), steps, damping=damping)
            return subject.classify(states[-1])

        return unrolled, "unrolled"
    gradient = GradientSpec(method="implicit")

    def implicit(x: Tensor) -> Tensor:
        return subject.classify(
            equilibrium(subject, subject.inject(x), solver=solver, gradient=gradient)
        )

    return implicit, "implicit"


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """How far and how often the attack steps.

    Attributes:
        steps: Gradient steps, >= 1; each has length 2.5 times the allowed length / steps.
        samples: Noisy copies per gradient, m, >= 1; 1 for a classifier without noise.

    Raises:
        ConfigurationError: A number below 1.
    """

    steps: int = 20
    samples: int = 32

    def __post_init__(self) -> None:
        for name in ("steps", "samples"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigurationError(f"{name} must be an integer >= 1, but got {value!r}")


def ascend(
    logits: Logits,
    image: Tensor,  # (C, H, W)
    target: Tensor,  # (classes,) class probabilities: 1 for one class
    lengths: Tensor,  # (B,)
    noise: Callable[[int], Tensor],  # step -> (m, C, H, W)
    *,
    steps: int,
    norm: str = "L2",
) -> Tensor:  # (B, C, H, W)
    """Return images at most so far from `image` whose averaged score of the class is made small.

    Args:
        logits: The classifier.
        image: The clean image.
        target: The class whose score is to fall.
        lengths: Allowed length of each shift, pixel units.
        noise: Gives the noise of a step, the same for all shifts; zeros for the classifier itself.
        steps: Gradient steps.
        norm: ``L2``, or ``Linf``: then steps go along the gradient's signs.
    """
    clean = image[None].expand(len(lengths), *image.shape)
    moved = clean.clone()
    step_length = (2.5 / steps * lengths).reshape(-1, 1, 1, 1)
    for step in range(steps):
        draws = noise(step)
        gradient = score_gradient(logits, moved, target, draws)
        if norm == "Linf":
            moved = project_linf(clean, moved + step_length * gradient.sign(), lengths)
        else:
            moved = project(clean, moved + step_length * gradient, lengths)
    return moved


def score_gradient(
    logits: Logits,
    images: Tensor,  # (B, C, H, W)
    target: Tensor,  # (classes,)
    draws: Tensor,  # (m, C, H, W)
) -> Tensor:  # (B, C, H, W), rows of length 1, or 0 where the score is flat
    """Return the direction in which the averaged softmax of the class falls most steeply."""
    at = images.detach().requires_grad_()
    with torch.enable_grad():
        noise = draws[:, None].expand(-1, len(images), *draws.shape[1:])
        # The loss sums rows that do not touch each other: one pass gives every row's gradient.
        loss = soft_loss(logits, at, target.expand(len(at), -1), noise)
        (gradient,) = torch.autograd.grad(loss, at)
    gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    return gradient / _lengths(gradient).clamp_min(1e-20)


def project(
    clean: Tensor,  # (B, C, H, W) in [0, 1]
    moved: Tensor,  # (B, C, H, W)
    lengths: Tensor,  # (B,)
) -> Tensor:  # (B, C, H, W)
    """Return the nearest points in [0, 1] whose distance from `clean` is below `lengths`.

    Nearest to p under both constraints is clip(x + t (p - x)) for some t in [0, 1] (one multiplier
    for the ball, a clip per pixel), and its distance from x rises with t.
    """
    return along(clean, moved - clean, lengths, most=1.0)


def project_linf(
    clean: Tensor,  # (B, C, H, W) in [0, 1]
    moved: Tensor,  # (B, C, H, W)
    lengths: Tensor,  # (B,)
) -> Tensor:  # (B, C, H, W)
    """Return the nearest points in [0, 1] all of whose pixels move by less than `lengths`."""
    base, limit = clean.double(), lengths.double().reshape(-1, 1, 1, 1)
    shift = (moved.double() - base).clamp(-limit * INSIDE, limit * INSIDE)
    found = (base + shift).clamp(0.0, 1.0).to(clean.dtype)
    # Rounding may lengthen a shift that is tiny for the precision.
    return torch.where((found.double() - base).abs() >= limit, clean, found)


def along(
    clean: Tensor,  # (B, C, H, W) in [0, 1]
    direction: Tensor,  # (B, C, H, W)
    lengths: Tensor,  # (B,)
    *,
    most: float,
) -> Tensor:  # (B, C, H, W)
    """Return clip(clean + t direction) for the largest t <= `most` that stays within `lengths`.

    The length of what is returned, in float64, is below `lengths`.
    """
    base, way = clean.double(), direction.double()
    limit = (lengths.double() * INSIDE).reshape(-1, 1, 1, 1)

    def at(t: Tensor) -> Tensor:
        return (base + t * way).clamp(0.0, 1.0)

    low = torch.zeros_like(limit)
    high = torch.full_like(limit, most)
    low = torch.where(_lengths(at(high) - base) <= limit, high, low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = _lengths(at(middle) - base) <= limit
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    found = at(low).to(clean.dtype)
    # Rounding to float32 may lengthen a shift: by far less than INSIDE leaves, except near 0.
    beyond = _lengths(found.double() - base) >= lengths.double().reshape(-1, 1, 1, 1)
    return torch.where(beyond, clean, found)


def _lengths(rows: Tensor) -> Tensor:  # (B, C, H, W) -> (B, 1, 1, 1)
    return torch.linalg.vector_norm(rows, dim=(1, 2, 3), keepdim=True)
