"""PREDICT of Cohen, Rosenfeld and Kolter (2019): the winner of a vote, or nobody."""

from __future__ import annotations

import numpy as np

from deqcert.errors import ConfigurationError
from deqcert.smoothing.classifier import Labels
from deqcert.stats import majority_p_value


def require_decisive(n: int, alpha: float) -> None:
    """Refuse a vote of so few draws that even all of one class would not decide it.

    Raises:
        ConfigurationError: n too small for alpha; the message names the n needed.
    """
    if majority_p_value(n, 0) <= alpha:
        return
    least = n + 1
    while majority_p_value(least, 0) > alpha:
        least += 1
    raise ConfigurationError(
        f"a vote of n = {n} draws can never decide at alpha = {alpha:g}, even if all agree: it "
        f"needs n >= {least}"
    )


def majority_class(
    labels: Labels,
    *,
    classes: int,
    margin: float,
    alpha: float,
) -> int | None:
    """Return the class that wins the exact two-sided test against its runner-up, or None.

    Cohen et al. (2019), Proposition 2. Near ties count for the runner-up: whichever way they would
    fall, the returned class stays the winner of the test. Failed draws form a group of their own.
    """
    clear = labels.clear(margin)
    counts = np.bincount(clear[clear >= 0], minlength=classes + 1)
    # Failed draws are a group of their own: it may win, but is never returned.
    counts[classes] = int((labels.label < 0).sum())
    ties = len(clear) - int(counts.sum())
    first, second = np.argsort(-counts, kind="stable")[:2]
    n_a, n_b = int(counts[first]), int(counts[second]) + ties
    if first == classes or n_a <= n_b:
        return None
    return int(first) if majority_p_value(n_a, n_b) <= alpha else None
