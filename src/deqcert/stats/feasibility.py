"""Whether a certificate is possible at all, asked before any draw is made."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from deqcert.errors import ConfigurationError
from deqcert.stats.audited import theorem_a_joint_lower
from deqcert.stats.binomial import minimum_n
from deqcert.stats.forecast import WEIGHTS
from deqcert.stats.regions import JointRegion
from deqcert.stats.validation import probability, whole_number


@lru_cache(maxsize=256)
def minimum_audit(alpha: float, n: int) -> int:
    """Return the smallest audit that can certify: n draws of the class, no disagreement, p > 1/2.

    By Theorem A' with the weights a plan chooses from; at most n, a census.

    Args:
        alpha: Failure probability, in (0, 1).
        n: Estimation draws, at least `minimum_n(alpha)`.

    Raises:
        ConfigurationError: alpha outside (0, 1), or n too small to certify with any audit.

    >>> minimum_audit(0.001, 10_000)
    15
    """
    _check_n(n, alpha)
    regions = [JointRegion(alpha, weight) for weight in WEIGHTS]
    # (1/2)^K > alpha leaves p = 1/2 possible, whatever the rule (THEORY 3).
    for drawn in range(minimum_n(alpha), n):
        facts = {"count": n, "n": n, "drawn": drawn, "disagreements": 0}
        if any(theorem_a_joint_lower(**facts, region=region) > 0.5 for region in regions):
            return drawn
    return n


def check_feasible(*, n: int, alpha: float, audit: Any) -> None:
    """Refuse settings with which even all labels agreeing could not certify.

    Args:
        n: Estimation draws.
        alpha: Failure probability of a certificate.
        audit: ``"auto"``, a count, a share of the draws of the class, or None for no audit.

    Raises:
        ConfigurationError: n or the audit too small (the least is named), an audit larger than
            the run, or a value out of range.
    """
    _check_n(n, alpha)
    if audit is None:
        return
    audit = checked_audit(audit, n)
    if isinstance(audit, str):
        return
    drawn = math.ceil(audit * n) if isinstance(audit, float) else audit
    least = minimum_audit(float(alpha), int(n))
    if drawn < least:
        share = f", a share of {least / n:.2g}" if isinstance(audit, float) else ""
        raise ConfigurationError(
            f"an audit of {drawn} draws can never certify at alpha = {alpha:g} and n = {n}, even "
            f"if all labels agree: it needs at least {least}{share}"
        )


def checked_audit(audit: Any, n: int) -> int | float | str:
    """Return `audit` as ``"auto"``, an int in [1, n] or a float in (0, 1].

    Raises:
        ConfigurationError: Anything else.
    """
    if isinstance(audit, str):
        if audit != "auto":
            raise ConfigurationError(f"audit must be 'auto', a count or a share, but got {audit!r}")
        return audit
    if isinstance(audit, float):
        if not 0.0 < audit <= 1.0:
            raise ConfigurationError(f"an audit share must lie in (0, 1], but got {audit!r}")
        return audit
    if whole_number("audit", audit, at_least=1) > n:
        raise ConfigurationError(
            f"an audit must not be larger than the run of n = {n} draws, but got {audit}"
        )
    return int(audit)


def _check_n(n: int, alpha: float) -> None:
    n, alpha = whole_number("n", n, at_least=1), probability("alpha", alpha)
    least = minimum_n(alpha)
    if n < least:
        raise ConfigurationError(
            f"n = {n} draws can never certify at alpha = {alpha:g}, even if all agree: "
            f"it needs n >= {least}"
        )
