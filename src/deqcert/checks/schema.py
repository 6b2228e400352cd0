"""Whether one record has the fields of a certificate, each of its type and within its range."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from deqcert.certificate import GUARANTEES, Audit, Certificate, Reference
from deqcert.checks.problems import Place, Problem
from deqcert.results.records import ABSTAINED, CERTIFIED

Test = Callable[[Any], bool]
Rule = tuple[Test, str]


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _positive(value: Any) -> bool:
    return type(value) is int and value >= 1


def _number(low: float = -math.inf, high: float = math.inf) -> Test:
    def test(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and low <= value <= high

    return test


def _between(low: float, high: float) -> Test:
    return lambda value: _number()(value) and low < value < high


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _or_none(test: Test) -> Test:
    return lambda value: value is None or test(value)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 2 and all(map(_whole, value))


def _quantiles(test: Test) -> Test:
    def check(value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            _is_share(key) and test(found) for key, found in value.items()
        )

    return check


def _is_share(text: str) -> bool:
    try:
        return 0.0 <= float(text) <= 1.0
    except ValueError:
        return False


def _digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


_WHOLE: Rule = (_whole, "a whole number >= 0")
_ONE: Rule = (_positive, "a whole number >= 1")
_SHARE: Rule = (_number(0.0, 1.0), "a number in [0, 1]")
_ABOVE_ZERO: Rule = (_between(0.0, math.inf), "a finite number > 0")
_NOT_NEGATIVE: Rule = (_number(0.0), "a finite number >= 0")
_OPTIONAL_SHARE: Rule = (_or_none(_SHARE[0]), "a number in [0, 1], or null")
_OPTIONAL_WHOLE: Rule = (_or_none(_whole), "a whole number >= 0, or null")
_NAME: Rule = (_text, "a text that is not empty")
_OPTIONAL_NAME: Rule = (_or_none(_text), "a text, or null")
_TABLE: Rule = (lambda value: isinstance(value, Mapping), "a table")
_PER_CLASS: Rule = (_counts, "a whole number >= 0 for each of at least 2 classes")

CERTIFICATE: dict[str, Rule] = {
    "prediction": _OPTIONAL_WHOLE,
    "radius": _NOT_NEGATIVE,
    "p_lower": _SHARE,
    "guarantee": (lambda value: value in GUARANTEES, f"one of {', '.join(GUARANTEES)}"),
    "method": _NAME,
    "sigma": _ABOVE_ZERO,
    "alpha": (_between(0.0, 1.0), "a number between 0 and 1"),
    "alpha_count": _OPTIONAL_SHARE,
    "alpha_audit": _OPTIONAL_SHARE,
    "n0": _ONE,
    "n": _ONE,
    "counts0": _PER_CLASS,
    "counts": _PER_CLASS,
    "count": _WHOLE,
    "audit": (_or_none(_TABLE[0]), "a table, or null"),
    "reference": _TABLE,
    "serial": _OPTIONAL_NAME,
    "warmup": _OPTIONAL_NAME,
    "start": _OPTIONAL_NAME,
    "chains": (_or_none(_positive), "a whole number >= 1, or null"),
    "noise": _NAME,
    "seed": _WHOLE,
    "index": _WHOLE,
    "plan": _TABLE,
    "steps": (_quantiles(_number(0.0)), "quantiles >= 0 by name"),
    "residual": (_quantiles(_or_none(_number(0.0))), "quantiles >= 0 or null by name"),
    "unconverged": _WHOLE,
    "cell_evaluations": _WHOLE,
    "seconds": _NOT_NEGATIVE,
}
OUTCOME: dict[str, Rule] = {
    "label": _WHOLE,
    "correct": (lambda value: isinstance(value, bool), "true or false"),
    "status": (
        lambda value: value in (CERTIFIED, ABSTAINED),
        f"{CERTIFIED} or {ABSTAINED}",
    ),
}
AUDIT: dict[str, Rule] = {
    "population": _WHOLE,
    "drawn": _WHOLE,
    "disagreements": _WHOLE,
    "upper_bound": _OPTIONAL_WHOLE,
}
REFERENCE: dict[str, Rule] = {
    "weights_digest": (_digest, "64 hexadecimal digits"),
    "solver": _NAME,
    "precision": _NAME,
    "margin": _NOT_NEGATIVE,
}

_WHY = "a record that does not fit the format cannot be read as a certificate"


def check_schema(place: Place, record: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is missing, unknown, of another type or out of range in one record."""
    known = {field.name for field in dataclasses.fields(Certificate)} | OUTCOME.keys()
    yield from _table(place, record, {**CERTIFICATE, **OUTCOME}, known, "")
    if isinstance(record.get("audit"), Mapping):
        names = {field.name for field in dataclasses.fields(Audit)}
        yield from _table(place, record["audit"], AUDIT, names, "audit.")
    if isinstance(record.get("reference"), Mapping):
        names = {field.name for field in dataclasses.fields(Reference)}
        yield from _table(place, record["reference"], REFERENCE, names, "reference.")


def _table(
    place: Place,
    table: Mapping[str, Any],
    rules: Mapping[str, Rule],
    known: set[str],
    prefix: str,
) -> Iterator[Problem]:
    for name in table.keys() - known:
        yield place.problem(f"{prefix}{name}", table[name], "(no such field)", _WHY)
    for name in known:
        if name not in table:
            yield place.problem(f"{prefix}{name}", "(absent)", "a value", _WHY)
    for name, (test, rule) in rules.items():
        if name in table and not test(table[name]):
            yield place.problem(f"{prefix}{name}", table[name], rule, _WHY)
