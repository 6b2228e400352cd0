"""Checks that settings share: integers, numbers in an interval, known names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from deqcert.errors import ConfigurationError, unknown_name


def require_known(kind: Any, values: Mapping[str, Any], prefix: str = "") -> None:
    """Raise UnknownNameError unless every name in `values` is a field of the dataclass `kind`."""
    known = [prefix + f.name for f in dataclasses.fields(kind)]
    for name in values:
        if prefix + name not in known:
            raise unknown_name("training setting", prefix + name, known)


def check_integers(
    settings: Any, *, at_least_1: tuple[str, ...] = (), at_least_0: tuple[str, ...] = ()
) -> None:
    """Raise ConfigurationError unless these attributes are integers that large."""
    for low, names in ((1, at_least_1), (0, at_least_0)):
        for name in names:
            value = getattr(settings, name)
            if type(value) is not int or value < low:
                raise ConfigurationError(f"{name} must be an integer >= {low}, but got {value!r}")


def check_number(
    name: str,
    value: Any,
    *,
    low: float,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Raise ConfigurationError unless `value` is a finite number of that interval."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and math.isfinite(value):
        above = value > low if open_low else value >= low
        below = value < high if open_high else value <= high
        if above and below:
            return
    left = "(" if open_low else "["
    right = ")" if open_high or high == math.inf else "]"
    raise ConfigurationError(
        f"{name} must lie in {left}{low:g}, {high:g}{right}, but got {value!r}"
    )
