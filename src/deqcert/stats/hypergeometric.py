"""How many bad members a population may have, given a random sample of it without replacement."""

from __future__ import annotations

import numpy as np

from deqcert.errors import ConfigurationError
from deqcert.stats.validation import audit_counts, whole_number

# The tail is a ratio of sums of products of up to `population` rounded ratios. Raising it by this
# relative amount is more than their error for populations up to 10^6.
ROUNDING = 1e-9


def disagreement_tail(
    population: int, drawn: int, disagreements: int
) -> np.ndarray:  # (population - drawn + 1,) in (0, 1], non-increasing
    """Return ``P(Hypergeometric(population, M, drawn) <= disagreements)`` for every possible M.

    Element i belongs to M = disagreements + i; M runs to population - drawn + disagreements, the
    largest number of bad members the sample allows. Each value is rounded up by at most 2e-9 of
    itself, and the first is 1.

    As a function of M the cdf is the upper tail of a distribution with weights proportional to
    C(M, m) C(population - 1 - M, drawn - 1 - m), because adding one bad member leaves the event
    only if that member is drawn beside m others. So one sweep of neighbouring ratios, all terms
    positive, gives every M without cancellation, factorials or logarithms.

    Raises:
        ConfigurationError: Not ``0 <= disagreements <= drawn <= population``.
    """
    whole_number("population", population, at_least=0)
    audit_counts(count=population, n=max(population, 1), drawn=drawn, disagreements=disagreements)
    rest, m = population - drawn, disagreements
    if m == drawn or rest == 0:
        return np.ones(rest + 1)
    i = np.arange(rest, dtype=np.float64)
    ratio = (m + i + 1.0) / (i + 1.0) * ((rest - i) / (population - 1.0 - m - i))
    mode = int(np.count_nonzero(ratio >= 1.0))  # ratios fall, so the weights have one peak
    weights = np.concatenate(
        [np.cumprod(1.0 / ratio[:mode][::-1])[::-1], [1.0], np.cumprod(ratio[mode:])]
    )
    tail = np.cumsum(weights[::-1])[::-1]
    return np.minimum(1.0, tail / tail[0] * (1.0 + ROUNDING))


def disagreements_upper(population: int, drawn: int, disagreements: int, alpha: float) -> int:
    """Upper confidence bound of the bad members M of a population, from a random sample of it.

    ``max{M : P(Hypergeometric(population, M, drawn) <= disagreements) > alpha}``. A census
    (drawn = population) gives M itself and needs no alpha; an empty sample gives the population.

    Guarantee:
        ``P(M <= disagreements_upper(...)) >= 1 - alpha`` when `drawn` members are chosen uniformly
        without replacement, whatever M is. THEORY 3, Theorem A (M_bar).

    Args:
        population: Members, N_A >= 0.
        drawn: Sample size, in [0, population].
        disagreements: Bad members found in the sample, in [0, drawn].
        alpha: Failure probability in [0, 1); at 0 the largest possible number is returned.

    Raises:
        ConfigurationError: A count out of range, or an alpha outside [0, 1).

    >>> disagreements_upper(10_000, 400, 0, 0.0005)
    184
    """
    if not 0.0 <= alpha < 1.0:
        raise ConfigurationError(f"alpha must lie in [0, 1), but got {alpha!r}")
    tail = disagreement_tail(population, drawn, disagreements)
    if alpha == 0.0:
        return population - drawn + disagreements
    return disagreements + int(np.count_nonzero(tail > alpha)) - 1
