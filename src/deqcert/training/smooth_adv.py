"""SmoothAdv: training on examples that attack the smoothed classifier (Salman et al. 2019).

The smoothed classifier's soft score of class c at x is the mean over noise of the softmax. For m
fixed noise draws n_i, projected gradient ascent looks for the shift d, |d|_2 <= epsilon, that makes
J(d) = -sum_c t_c log(1/m sum_i softmax(f(x + d + n_i))_c) large, t the targets; training then sees
x + d + n_i for those same n_i (their SmoothAdv_PGD with `num_noise_vec` m).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deqcert.training.checks import check_integers, check_number


@dataclass(frozen=True, kw_only=True)
class SmoothAdvSpec:
    """How examples are attacked.

    Attributes:
        epsilon: Largest L2 norm of the shift, pixel units, > 0.
        steps: Gradient steps, >= 1; each has length 2 epsilon / steps, as published.
        samples: Noise draws per image, m, in the attack and in the loss, >= 1; a training step
            costs m times as many rows.
        solver_steps: Picard steps the attack differentiates through, >= 1.
        warmup_epochs: Epochs over which epsilon rises linearly from 0, >= 0.

    Raises:
        ConfigurationError: A value out of range.
    """

    epsilon: float = 0.25
    steps: int = 2
    samples: int = 2
    solver_steps: int = 3
    warmup_epochs: int = 10

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon, low=0.0, open_low=True)
        check_integers(
            self,
            at_least_1=("steps", "samples", "solver_steps"),
            at_least_0=("warmup_epochs",),
        )

    def epsilon_at(self, epoch: int) -> float:
        """Return epsilon in `epoch` (from 0)."""
        return self.epsilon * min(1.0, (epoch + 1) / max(1, self.warmup_epochs))


def attack(
    logits: Callable[[Tensor], Tensor],  # (m * B, C, H, W) -> (m * B, classes)
    images: Tensor,  # (B, C, H, W), in [0, 1]
    targets: Tensor,  # (B, classes)
    noise: Tensor,  # (m, B, C, H, W)
    *,
    epsilon: float,
    steps: int,
) -> Tensor:  # (B, C, H, W)
    """Return the shifted images; they stay in [0, 1] and within `epsilon` of `images`.

    Args:
        logits: The classifier under attack; its parameters get no gradient.
        images: Clean images.
        targets: Class probabilities whose score is to fall.
        noise: The noise draws, fixed during the attack.
        epsilon: Largest L2 norm of the shift, >= 0.
        steps: Gradient steps.
    """
    shift = torch.zeros_like(images)
    if epsilon == 0.0:
        return images
    for _ in range(steps):
        shift.requires_grad_(True)
        loss = soft_loss(logits, images + shift, targets, noise)
        (gradient,) = torch.autograd.grad(loss, shift)
        with torch.no_grad():
            moved = shift + (2.0 * epsilon / steps) * _unit(gradient)
            moved = _to_ball(moved, epsilon)
            # Clipping pixels moves each entry towards 0: the shift stays within the ball.
            shift = (images + moved).clamp(0.0, 1.0) - images
    return (images + shift).detach()


def soft_loss(
    logits: Callable[[Tensor], Tensor],
    images: Tensor,  # (B, C, H, W)
    targets: Tensor,  # (B, classes)
    noise: Tensor,  # (m, B, C, H, W)
) -> Tensor:  # ()
    """Return the cross-entropy of the averaged softmax, summed over the batch."""
    count = len(noise)
    scores = logits((images + noise).flatten(0, 1)).float().log_softmax(dim=1)
    scores = scores.unflatten(0, (count, len(images)))
    mean = scores.logsumexp(dim=0) - torch.log(torch.tensor(float(count)))
    return -(targets * mean).sum()


def _unit(gradient: Tensor) -> Tensor:  # (B, ...) -> same, each row of norm 1
    return gradient / _norms(gradient).clamp_min(1e-12)


def _to_ball(shift: Tensor, epsilon: float) -> Tensor:  # (B, ...) -> same
    return shift * (epsilon / _norms(shift).clamp_min(1e-12)).clamp_max(1.0)


def _norms(rows: Tensor) -> Tensor:  # (B, C, H, W) -> (B, 1, 1, 1)
    return torch.linalg.vector_norm(rows, dim=(1, 2, 3), keepdim=True)
