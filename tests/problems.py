"""Equilibrium models whose smoothed class and radius are known in closed form.

All take images of two pixels, shape (1, 1, 2), and label by the sign of one projection of the
noisy image, so that the true class probability is a normal cdf and the true radius a distance.
"""

from __future__ import annotations

import math

import torch
from scipy.stats import norm
from torch import Tensor

from deqcert.models import EquilibriumModel

SHAPE = (1, 1, 2)
DIRECTION = torch.tensor([0.6, 0.8])


class TwoClassDEQ(EquilibriumModel):
    """Class 1 where DIRECTION . x > offset, for the cold solve; subclasses choose the cell."""

    def __init__(self, *, offset: float = 0.5, solver: str = "picard:3") -> None:
        super().__init__(num_classes=2, input_shape=SHAPE, solver=solver)
        self.offset = offset
        self.weight = torch.nn.Parameter(DIRECTION.clone())

    def inject(self, x: Tensor) -> Tensor:  # (batch, 1)
        return x.flatten(1) @ self.weight[:, None] - self.offset

    def initial_state(self, injection: Tensor) -> Tensor:
        return torch.zeros_like(injection)

    def classify(self, state: Tensor) -> Tensor:
        return torch.cat([-state[:, :1], state[:, :1]], dim=1)

    def true_margin(self, image: Tensor) -> float:
        """Signed distance of the image from the decision line of the cold classifier."""
        return float((image.flatten().double() @ DIRECTION.double()) - self.offset)

    def true_probability(self, image: Tensor, label: int, sigma: float) -> float:
        """Probability of `label` under the noise, for the cold reference classifier."""
        sign = 1.0 if label == 1 else -1.0
        return float(norm.cdf(sign * self.true_margin(image) / sigma))


class LinearDEQ(TwoClassDEQ):
    """z = z / 2 + u: contractive and linear; every iterate has the sign of u, from a zero start."""

    def cell(self, state: Tensor, injection: Tensor) -> Tensor:
        return 0.5 * state + injection


class StickyDEQ(TwoClassDEQ):
    """Two stable states: cold solves follow the sign of u, warm ones stay up once they are up.

    z = tanh(2 (z + u + lift [z > 0.5])): from zero the sign of u decides; from the lower state a
    row comes up where u > 0.27; from the upper one it comes down only where u < -lift - 0.5 or so.
    """

    def __init__(self, *, lift: float = 3.0, offset: float = 0.5) -> None:
        super().__init__(offset=offset, solver="picard:12")
        self.lift = lift

    def cell(self, state: Tensor, injection: Tensor) -> Tensor:
        up = (state > 0.5).to(state.dtype)
        return torch.tanh(2.0 * (state + injection + self.lift * up))


class LateBurstDEQ(TwoClassDEQ):
    """Right at first; after many warm solves a counter in the state turns every label to class 1.

    The counter grows with each cell evaluation and starts at zero in every cold solve, where it
    never gets far enough to matter.
    """

    def __init__(self, *, bursts_after: int, offset: float = 0.5) -> None:
        super().__init__(offset=offset, solver="picard:3")
        assert bursts_after >= self.solver.max_steps  # cold solves stay right
        self.bursts_after = bursts_after

    def initial_state(self, injection: Tensor) -> Tensor:
        return injection.new_zeros(injection.shape[0], 2)

    def cell(self, state: Tensor, injection: Tensor) -> Tensor:
        counter = state[:, 1:] + 1.0
        burst = (counter > self.bursts_after).to(state.dtype)
        return torch.cat([(1.0 - burst) * injection + burst, counter], dim=1)


class PartialDriftDEQ(TwoClassDEQ):
    """Only some draws drift: warm solves turn to class 1 where the other noise direction is large.

    The share of drifting draws is 1 - Phi(level), whatever their true label.
    """

    def __init__(self, *, level: float, sigma: float, offset: float = 0.5) -> None:
        super().__init__(offset=offset, solver="picard:3")
        self.level = level
        self.sigma = sigma

    def inject(self, x: Tensor) -> Tensor:  # (batch, 2)
        across = torch.tensor([[-0.8], [0.6]], dtype=x.dtype, device=x.device)
        other = x.flatten(1) @ across / self.sigma  # the clean images of `image_at` give 0
        return torch.cat([super().inject(x), other], dim=1)

    def initial_state(self, injection: Tensor) -> Tensor:
        return injection.new_zeros(injection.shape[0], 2)

    def cell(self, state: Tensor, injection: Tensor) -> Tensor:
        warm = state[:, 1:] + 1.0  # more than the 3 evaluations of a cold solve: a warm one
        drifts = ((warm > 3.5) & (injection[:, 1:] > self.level)).to(state.dtype)
        return torch.cat([(1.0 - drifts) * injection[:, :1] + drifts, warm], dim=1)


def image_at(margin: float, *, offset: float = 0.5) -> Tensor:  # (1, 1, 2)
    """Return the image at this signed distance from the line, towards class 1."""
    x = DIRECTION * (margin + offset)
    assert float(x.min()) >= 0.0
    assert float(x.max()) <= 1.0
    return x.reshape(SHAPE)


def margin_for(probability: float, sigma: float) -> float:
    """Return the distance at which class 1 has this probability."""
    return sigma * float(norm.ppf(probability))


def violations_allowed(trials: int, alpha: float, *, evidence: float = 1e-4) -> int:
    """Return the most violations that a valid rule exceeds with probability at most `evidence`."""
    from scipy.stats import binom

    return int(binom.ppf(1.0 - evidence, trials, alpha))


assert math.isclose(float(DIRECTION.norm()), 1.0, rel_tol=1e-6)
