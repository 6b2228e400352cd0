"""From a class probability to a certified radius."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from deqcert.errors import ConfigurationError
from deqcert.stats.validation import positive

# ndtri is within 1.5 units of 2^-52 of the truth on (1/2, 1) (measured against 40 digits); this
# takes more than that off, the rounding of the product included.
ROUNDING = 2.0**-49


def certified_radius(p_lower: float, sigma: float) -> float:
    """Return the L2 radius ``sigma * Phi^-1(p_lower)``, never rounded up; 0.0 at p_lower <= 1/2.

    A `p_lower` of exactly 1 counts as the largest double below 1, so that the radius stays finite.

    Guarantee:
        Where P(f(x + e) = c) >= p_lower for e ~ N(0, sigma^2 I), the smoothed classifier returns
        c at every x + delta with ``||delta||_2 < certified_radius(p_lower, sigma)``. Cohen,
        Rosenfeld and Kolter (2019), Theorem 1; THEORY 2.

    Args:
        p_lower: Lower bound of the class probability, in [0, 1].
        sigma: Noise standard deviation in pixel units, > 0; the radius has the same unit.

    Raises:
        ConfigurationError: p_lower outside [0, 1] or sigma not a finite number > 0.

    >>> certified_radius(0.5, sigma=0.25)
    0.0
    """
    sigma = positive("sigma", sigma)
    if not 0.0 <= p_lower <= 1.0:
        raise ConfigurationError(f"p_lower must lie in [0, 1], but got {p_lower!r}")
    if p_lower <= 0.5:
        return 0.0
    with np.errstate(over="ignore"):
        # Noise is made in float32: its deviation is the nearest number there, which may be less.
        sigma = min(sigma, float(np.float32(sigma)))
    p_lower = min(float(p_lower), math.nextafter(1.0, 0.0))
    return float(sigma * special.ndtri(p_lower) * (1.0 - ROUNDING))
