"""Exact bounds and tests for a binomial proportion."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from deqcert.errors import ConfigurationError
from deqcert.stats.validation import probability, whole_number

# Quantiles are lowered by this relative amount, so that rounding never raises a bound.
ROUNDING = 2.0**-48


def clopper_pearson_lower(
    count: ArrayLike,  # (*batch,) whole numbers in [0, n]
    n: int,
    alpha: ArrayLike,  # (*batch,) in (0, 1)
) -> Any:  # (*batch,) in [0, 1); a float where count and alpha are scalars
    """Lower confidence bound of a binomial proportion: the `alpha` quantile of Beta(k, n - k + 1).

    `count` and `alpha` broadcast. The bound is 0 at count 0 (the convention of Clopper and
    Pearson 1934), and it is never rounded up.

    Guarantee:
        ``P(clopper_pearson_lower(X, n, alpha) <= p) >= 1 - alpha`` for X ~ Binomial(n, p), every
        p in [0, 1] and every n, with `alpha` fixed before X is seen. Clopper and Pearson (1934);
        THEORY 2.

    Raises:
        ConfigurationError: n < 1, a count that is not a whole number in [0, n], or an alpha
            outside (0, 1).

    >>> round(clopper_pearson_lower(9_000, 10_000, 0.001), 4)
    0.8904
    """
    count, n, alpha = _validated(count, n, alpha)
    bound = beta_quantile_below(count, n, alpha)
    return float(bound) if bound.ndim == 0 else bound


def clopper_pearson_upper(
    count: ArrayLike,  # (*batch,) whole numbers in [0, n]
    n: int,
    alpha: ArrayLike,  # (*batch,) in (0, 1)
) -> Any:  # (*batch,) in (0, 1]; a float where count and alpha are scalars
    """Upper confidence bound of a binomial proportion: the mirror image of the lower one.

    1 at count n, and never rounded down.

    Guarantee:
        ``P(clopper_pearson_upper(X, n, alpha) >= p) >= 1 - alpha`` for X ~ Binomial(n, p), with
        `alpha` fixed before X is seen. Clopper and Pearson (1934).

    Raises:
        ConfigurationError: As `clopper_pearson_lower`.
    """
    count, n, alpha = _validated(count, n, alpha)
    lower = beta_quantile_below(n - count, n, alpha)
    bound = np.minimum(1.0, np.nextafter(1.0 - lower, 2.0))
    return float(bound) if bound.ndim == 0 else bound


def beta_quantile_below(
    count: np.ndarray,  # (*batch,) real numbers in [0, n]
    n: float,
    alpha: np.ndarray,  # (*batch,) in (0, 1)
) -> np.ndarray:  # (*batch,) in [0, 1)
    """Return the `alpha` quantile of Beta(count, n - count + 1), lowered by rounding; 0 at count 0.

    The value q is checked by the cdf: ``betainc(count, n - count + 1, q) <= alpha`` holds as
    computed, whatever the accuracy of the inverse in the installed SciPy. No validation here.
    """
    count, alpha = np.broadcast_arrays(
        np.asarray(count, dtype=np.float64), np.asarray(alpha, dtype=np.float64)
    )
    a = np.where(count > 0, count, 1.0)
    b = n - a + 1.0
    quantile = np.asarray(special.betaincinv(a, b, alpha)) * (1.0 - ROUNDING)
    step = ROUNDING
    while np.any(too_high := special.betainc(a, b, quantile) > alpha):
        quantile = np.where(too_high, quantile * (1.0 - step), quantile)
        step = min(2.0 * step, 0.5)
    return np.where(count > 0, quantile, 0.0)


def majority_p_value(n_a: int, n_b: int) -> float:
    """Two-sided p-value of the exact binomial test that two classes are equally likely.

    ``min(1, 2 P(X >= max(n_a, n_b)))`` for X ~ Binomial(n_a + n_b, 1/2); 1 where nothing was
    drawn. PREDICT returns the class in front iff the value is at most its alpha.

    Guarantee:
        If the class in front is not the likelier of the two, the value is at most `alpha` with
        probability at most `alpha`. Hung and Fithian (2019); Cohen, Rosenfeld and Kolter (2019),
        Proposition 1; THEORY 2.

    Args:
        n_a: Draws of one class.
        n_b: Draws of the other.

    Raises:
        ConfigurationError: A count that is negative or not whole.

    >>> majority_p_value(10, 0)
    0.001953125
    """
    n_a = whole_number("n_a", n_a, at_least=0)
    n_b = whole_number("n_b", n_b, at_least=0)
    most, least = max(n_a, n_b), min(n_a, n_b)
    if most == 0:
        return 1.0
    return float(min(1.0, 2.0 * special.betainc(most, least + 1.0, 0.5)))


def minimum_n(alpha: float) -> int:
    """Return the fewest draws n with which n of n successes give a lower bound above 1/2.

    Raises:
        ConfigurationError: alpha outside (0, 1).

    >>> minimum_n(0.001)
    10
    """
    alpha = probability("alpha", alpha)
    n = max(1, int(-np.log2(alpha)) - 1)
    while clopper_pearson_lower(n, n, alpha) <= 0.5:
        n += 1
    return n


def _validated(count: ArrayLike, n: int, alpha: ArrayLike) -> tuple[np.ndarray, int, np.ndarray]:
    n = whole_number("n", n, at_least=1)
    count, alpha = np.asarray(count), np.asarray(alpha)
    if count.dtype.kind not in "iuf" or not np.all((count >= 0) & (count <= n)):
        raise ConfigurationError(f"count must lie in [0, n = {n}], but got {count}")
    if count.dtype.kind == "f" and not np.all(count == np.floor(count)):
        raise ConfigurationError(f"count must be a whole number, but got {count}")
    if alpha.dtype.kind != "f" or not np.all((alpha > 0) & (alpha < 1)):
        raise ConfigurationError(f"alpha must lie strictly between 0 and 1, but got {alpha}")
    return count, n, alpha
