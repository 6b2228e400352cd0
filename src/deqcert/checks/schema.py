"""Whether one record has the fields of a certificate, each of its type and within its range."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

from deqcert.certificate import (
    DETERMINISTIC,
    GUARANTEES,
    NORMS,
    Audit,
    Certificate,
    DeterministicCertificate,
    Reference,
)
from deqcert.checks.problems import Place, Problem
from deqcert.results.records import ABSTAINED, CERTIFIED
from deqcert.smoothing.spent import QUANTILES

Test = Callable[[Any], bool]
Rule = tuple[Test, str]


LARGEST = 10_000_000
"""Draws that a record may speak of. Bounds take memory in proportion: a forged 10^30 must not."""

_LATEST = 1e12  # radii, seconds and indices that no run reaches, and no table can show


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def _positive(value: Any) -> bool:
    return type(value) is int and 1 <= value <= LARGEST


def is_whole(value: Any) -> bool:
    """Whether `value` is a whole number >= 0, of any size."""
    return type(value) is int and value >= 0


def _number(low: float = -math.inf, high: float = math.inf) -> Test:
    def test(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and low <= value <= high

    return test


def _between(low: float, high: float) -> Test:
    return lambda value: _number()(value) and low < value < high


def is_text(value: Any) -> bool:
    """Whether `value` is a text that is not empty."""
    return isinstance(value, str) and value != ""


def _or_none(test: Test) -> Test:
    return lambda value: value is None or test(value)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 2 and all(map(_whole, value))


def _quantiles(test: Test) -> Test:
    names = {f"{q:g}" for q in QUANTILES}

    def check(value: Any) -> bool:
        return isinstance(value, Mapping) and (
            not value or (value.keys() == names and all(map(test, value.values())))
        )

    return check


def is_digest(value: Any) -> bool:
    """Whether `value` is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


_WHOLE: Rule = (_whole, f"a whole number in [0, {LARGEST}]")
_ONE: Rule = (_positive, f"a whole number in [1, {LARGEST}]")
_ANY_WHOLE: Rule = (is_whole, "a whole number >= 0")
_INDEX: Rule = (lambda value: is_whole(value) and value <= _LATEST, "a whole number >= 0")
_SHARE: Rule = (_number(0.0, 1.0), "a number in [0, 1]")
_ABOVE_ZERO: Rule = (_between(0.0, math.inf), "a finite number > 0")
_NOT_NEGATIVE: Rule = (_number(0.0), "a finite number >= 0")
_OPTIONAL_SHARE: Rule = (_or_none(_SHARE[0]), "a number in [0, 1], or null")
_OPTIONAL_WHOLE: Rule = (_or_none(_whole), "a whole number >= 0, or null")
_NAME: Rule = (is_text, "a text that is not empty")
_OPTIONAL_NAME: Rule = (_or_none(is_text), "a text, or null")
_TABLE: Rule = (lambda value: isinstance(value, Mapping), "a table")
_PER_CLASS: Rule = (_counts, "a whole number >= 0 for each of at least 2 classes")

CERTIFICATE: dict[str, Rule] = {
    "prediction": _OPTIONAL_WHOLE,
    "radius": (_number(0.0, _LATEST), "a finite number >= 0"),
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
    "seed": _ANY_WHOLE,
    "index": _INDEX,
    "plan": _TABLE,
    "steps": (_quantiles(_number(0.0)), "quantiles >= 0 by name"),
    "residual": (_quantiles(_or_none(_number(0.0))), "quantiles >= 0 or null by name"),
    "unconverged": _ANY_WHOLE,
    "cell_evaluations": _ANY_WHOLE,
    "seconds": (_number(0.0, _LATEST), "a finite number >= 0"),
}
CERTAIN: dict[str, Rule] = {
    "prediction": _OPTIONAL_WHOLE,
    "radius": (_number(0.0, _LATEST), "a finite number >= 0"),
    "norm": (lambda value: value in ("L2", "Linf"), "L2 or Linf"),
    "method": (lambda value: is_text(value) and value in NORMS, f"one of {', '.join(NORMS)}"),
    "reference": _TABLE,
    "domain": (lambda value: value in ("all", "pixels"), "all or pixels"),
    "index": _INDEX,
    "distance": _NOT_NEGATIVE,
    "facts": _TABLE,
    "cell_evaluations": _ANY_WHOLE,
    "seconds": (_number(0.0, _LATEST), "a finite number >= 0"),
    "guarantee": (lambda value: value == DETERMINISTIC, DETERMINISTIC),
}
"""Fields of a deterministic certificate."""
FACTS: dict[str, dict[str, Rule]] = {
    "lipschitz": {
        **dict.fromkeys(
            ("m", "operator_norm", "step", "head_norm", "input_norm", "lipschitz"), _ABOVE_ZERO
        ),
        "rate": _NOT_NEGATIVE,
        "operator_slip": _NOT_NEGATIVE,
        "cell_evaluations": _ANY_WHOLE,
        **dict.fromkeys(("precision", "slack", "solver"), _NAME),
    },
    "interval": {
        **dict.fromkeys(("m", "step", "largest", "resolution"), _ABOVE_ZERO),
        "rate": _NOT_NEGATIVE,
        "steps": _ONE,
        **dict.fromkeys(("precision", "slack"), _NAME),
    },
}
"""What a deterministic certificate says it rests on."""
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
    "weights_digest": (is_digest, "64 hexadecimal digits"),
    "solver": _NAME,
    "precision": _NAME,
    "margin": _NOT_NEGATIVE,
}

_WHY = "a record that does not fit the format cannot be read as a certificate"


def check_schema(place: Place, record: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is missing, unknown, of another type or out of range in one record."""
    fields = dataclasses.fields(Certificate)
    known = {field.name for field in fields} | OUTCOME.keys()
    # A field with a default is younger than the format: older records lack it.
    younger = {field.name for field in fields if field.default is not dataclasses.MISSING}
    yield from _table(place, record, {**CERTIFICATE, **OUTCOME}, known, "", younger)
    if isinstance(record.get("audit"), Mapping):
        names = {field.name for field in dataclasses.fields(Audit)}
        yield from _table(place, record["audit"], AUDIT, names, "audit.")
    if isinstance(record.get("reference"), Mapping):
        names = {field.name for field in dataclasses.fields(Reference)}
        yield from _table(place, record["reference"], REFERENCE, names, "reference.")


def check_certain_schema(place: Place, record: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the same of one deterministic record."""
    known = {field.name for field in dataclasses.fields(DeterministicCertificate)} | OUTCOME.keys()
    yield from _table(place, record, {**CERTAIN, **OUTCOME}, known, "")
    if isinstance(record.get("reference"), Mapping):
        yield from _table(place, record["reference"], REFERENCE, set(REFERENCE), "reference.")
    method = record.get("method")
    if isinstance(record.get("facts"), Mapping) and isinstance(method, str) and method in FACTS:
        rules = FACTS[method]
        yield from _table(place, record["facts"], rules, set(rules), "facts.")


def _table(
    place: Place,
    table: Mapping[str, Any],
    rules: Mapping[str, Rule],
    known: set[str],
    prefix: str,
    younger: Set[str] = frozenset(),
) -> Iterator[Problem]:
    for name in table.keys() - known:
        yield place.problem(f"{prefix}{name}", table[name], "(no such field)", _WHY)
    for name in known - younger:
        if name not in table:
            yield place.problem(f"{prefix}{name}", "(absent)", "a value", _WHY)
    for name, (test, rule) in rules.items():
        if name in table and not test(table[name]):
            yield place.problem(f"{prefix}{name}", table[name], rule, _WHY)
