"""Checks shared by the statistics: each states its rule and the value it received."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from deqcert.errors import ConfigurationError


def whole_number(name: str, value: Any, *, at_least: int) -> int:
    """Return `value` as an int, or raise where it is not a whole number >= `at_least`.

    Raises:
        ConfigurationError: `value` is no integer, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < at_least:
        raise ConfigurationError(f"{name} must be an integer >= {at_least}, but got {value!r}")
    return int(value)


def probability(name: str, value: Any) -> float:
    """Return `value` as a float strictly between 0 and 1.

    Raises:
        ConfigurationError: `value` is no number in the open interval (0, 1).
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < 1:
        raise ConfigurationError(f"{name} must lie strictly between 0 and 1, but got {value!r}")
    return float(value)


def positive(name: str, value: Any) -> float:
    """Return `value` as a finite float above 0.

    Raises:
        ConfigurationError: `value` is no finite number > 0.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise ConfigurationError(f"{name} must be a finite number > 0, but got {value!r}")
    return float(value)


def audit_counts(*, count: int, n: int, drawn: int, disagreements: int) -> None:
    """Refuse audits that cannot have happened.

    Raises:
        ConfigurationError: Not ``0 <= disagreements <= drawn <= count <= n`` with n >= 1.
    """
    whole_number("n", n, at_least=1)
    whole_number("disagreements", disagreements, at_least=0)
    for name, value, limit_name, limit in (
        ("count", count, "n", n),
        ("drawn", drawn, "count", count),
        ("disagreements", disagreements, "drawn", drawn),
    ):
        if whole_number(name, value, at_least=0) > limit:
            raise ConfigurationError(
                f"{name} must be at most {limit_name} = {limit}, but got {value}"
            )
