"""How the failure probability is shared between counting draws and auditing labels.

A region is a down-set D of the unit square with area at most alpha (THEORY 3, Theorem A'). The
first coordinate u1 is the p-value of the count, the second, u2, that of the audit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import special

from deqcert.errors import ConfigurationError
from deqcert.stats.validation import probability

# Normal quantiles and tails are good to about 1e-14; levels are lowered by more than that.
ROUNDING = 1e-12


class Region(Protocol):
    """A down-set of [0, 1]^2, given by its widest extent at each height."""

    @property
    def alpha(self) -> float:
        """The failure probability: an upper bound of the area."""
        ...

    def count_level(
        self,
        u2: np.ndarray,  # (*batch,) in [0, 1]
    ) -> np.ndarray:  # (*batch,) in (0, 1]
        """Return the largest u1 with (u1, u2) in the region; non-increasing in u2."""
        ...


@dataclass(frozen=True)
class SplitRegion:
    """The L-shaped region of Theorem A: u1 <= alpha_count or u2 <= alpha_audit.

    Its area is alpha_count + alpha_audit - alpha_count * alpha_audit.

    Attributes:
        alpha_count: Share of the count, in (0, 1).
        alpha_audit: Share of the audit, in (0, 1).

    Raises:
        ConfigurationError: A share outside (0, 1), or a sum of 1 and more.
    """

    alpha_count: float
    alpha_audit: float

    def __post_init__(self) -> None:
        probability("alpha_count", self.alpha_count)
        probability("alpha_audit", self.alpha_audit)
        probability("alpha_count + alpha_audit", self.alpha)

    @property
    def alpha(self) -> float:
        """The failure probability, by the union bound."""
        return self.alpha_count + self.alpha_audit

    def count_level(
        self,
        u2: np.ndarray,  # (*batch,) in [0, 1]
    ) -> np.ndarray:  # (*batch,) in (0, 1]
        """Return the largest u1 with (u1, u2) in the region."""
        return np.where(np.asarray(u2) <= self.alpha_audit, 1.0, self.alpha_count)


@dataclass(frozen=True)
class JointRegion:
    """The region of Theorem A': ``w z1 + sqrt(1 - w^2) z2 >= c``, or u1 or u2 <= strip * alpha.

    z = Phi^-1(1 - u). The half-plane has area 1 - Phi(c); c is set so that this and the two strips
    add up to alpha (their overlap is given away). The strips are needed because a population may
    hold no disagreement but the audited ones, where u2 = 1, or more than any count could show.

    Attributes:
        alpha: Area, the failure probability, in (0, 1).
        weight: w in (0, 1): the standard deviation of the count beside that of the audit's bound.
        strip: Share of alpha in each strip, in (0, 1/2).

    Raises:
        ConfigurationError: A value outside its range.
    """

    alpha: float
    weight: float
    strip: float = 0.02

    def __post_init__(self) -> None:
        probability("alpha", self.alpha)
        probability("weight", self.weight)
        if not 0.0 < self.strip < 0.5:
            raise ConfigurationError(f"strip must lie in (0, 0.5), but got {self.strip!r}")

    @property
    def threshold(self) -> float:
        """The distance c of the half-plane from the origin."""
        return -float(special.ndtri((1.0 - 2.0 * self.strip) * self.alpha))

    def count_level(
        self,
        u2: np.ndarray,  # (*batch,) in [0, 1]
    ) -> np.ndarray:  # (*batch,) in (0, 1]
        """Return the largest u1 with (u1, u2) in the region, rounded down; 1 within the strip."""
        u2 = np.asarray(u2, dtype=np.float64)
        edge = self.strip * self.alpha
        above = ~(u2 <= edge)  # most of a long tail lies in the strip, and costs nothing
        level = np.ones_like(u2)
        z2 = -special.ndtri(u2[above])
        z1 = (self.threshold - math.sqrt(1.0 - self.weight**2) * z2) / self.weight
        level[above] = np.maximum(special.ndtr(-z1), edge) * (1.0 - ROUNDING)
        return level
