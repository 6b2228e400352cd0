"""One line of ``records.jsonl``: a certificate and what became of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from deqcert.certificate import (
    GUARANTEES,
    AnyCertificate,
    Audit,
    Certificate,
    Reference,
    read_certificate,
)
from deqcert.errors import DeqcertError, RunFolderError

Record = dict[str, Any]

CERTIFIED, ABSTAINED = "certified", "abstained"


def _names(kind: Any) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(kind))


_FIELDS = _names(Certificate) | {"label", "correct", "status"}
_REFERENCE, _AUDIT = _names(Reference), _names(Audit)
_NONE = type(None)
_NUMBERS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("index", "label", "n0", "n", "count"), (int,)),
    **dict.fromkeys(("unconverged", "cell_evaluations"), (int,)),
    **dict.fromkeys(("prediction", "chains"), (int, _NONE)),
    **dict.fromkeys(("radius", "p_lower", "sigma", "alpha", "distance", "seconds"), (float, int)),
    **dict.fromkeys(("alpha_count", "alpha_audit"), (float, int, _NONE)),
}
"""Fields that hold a number >= 0."""
_TYPES: dict[str, tuple[type, ...]] = {
    **_NUMBERS,
    "correct": (bool,),
    **dict.fromkeys(("method", "guarantee", "status", "noise", "norm", "domain"), (str,)),
    **dict.fromkeys(("serial", "warmup", "start"), (str, _NONE)),
    **dict.fromkeys(("reference", "plan", "facts", "steps", "residual"), (dict,)),
    **dict.fromkeys(("counts0", "counts"), (list,)),
    "audit": (dict, _NONE),
}
_LARGEST = 1e12
"""More than any whole number but a seed, any radius, sigma or time of an image."""
_COUNTS = ("counts0", "counts")
_QUANTILES = {"steps": _LARGEST, "residual": math.inf}
"""Tables of quantiles over draws, and what none of them exceeds."""


def make_record(certificate: AnyCertificate, label: int) -> Record:
    """Return the certificate's fields with ``label``, ``correct`` and ``status`` beside them."""
    return {
        **certificate.to_json(),
        "label": int(label),
        "correct": certificate.prediction is not None and certificate.prediction == label,
        "status": ABSTAINED if certificate.abstained else CERTIFIED,
    }


def encode(record: Record) -> str:
    """Return `record` as one line of strict JSON, floats in full precision.

    Raises:
        RunFolderError: A value that JSON cannot hold, such as NaN.
    """
    try:
        return json.dumps(record, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise RunFolderError(f"record of image {record.get('index')}: {error}") from error


def decode(line: bytes, *, where: str) -> Record:
    """Return the record in a whole `line`; `where` names it in the error.

    Raises:
        RunFolderError: Not a certificate's record.
    """
    try:
        record = json.loads(line, parse_constant=_refuse)
        read_certificate(record)
        missing = {"label", "correct", "status"} - record.keys()
        if missing:
            raise ValueError(f"missing {', '.join(sorted(missing))}")
        if (wrong := _wrong_type(record)) is not None:
            raise ValueError(f"its {wrong} is {record[wrong]!r}")
    except (ValueError, TypeError, AttributeError, DeqcertError) as error:
        raise RunFolderError(f"{where} is damaged: {error}") from error
    return record


def _refuse(name: str) -> None:
    raise ValueError(f"it holds {name}, which is not JSON")


def _wrong_type(record: Record) -> str | None:
    """Return the name of a value that no table could show, if there is one."""
    for name, value in record.items():
        kinds = _TYPES.get(name)
        if kinds is not None and type(value) not in kinds:
            return name
        if name in _NUMBERS and value is not None and not 0 <= value <= _LARGEST:
            return name
    for name in _COUNTS:
        if not _are_counts(record.get(name, ())):
            return name
    for name, most in _QUANTILES.items():
        if not _are_quantiles(record.get(name, {}), most):
            return name
    audit = record.get("audit")
    if audit is not None and not _are_counts(
        # A joint rule has no bound of its own.
        [n for name, n in audit.items() if not (name == "upper_bound" and n is None)]
    ):
        return "audit"
    return _beyond(record)


def _beyond(record: Record) -> str | None:
    """Return the name of what contradicts the counts of a record under noise, if there is any."""
    if "counts0" not in record:
        return None
    classes = len(record["counts0"])
    if classes == 0 or len(record["counts"]) != classes:
        return "counts"
    if record["label"] >= classes:
        return "label"
    return "n" if record["n"] < 1 else "n0" if record["n0"] < 1 else None


def _are_counts(values: Sequence[Any]) -> bool:
    if not {*map(type, values)} <= {int}:
        return False
    return not values or (min(values) >= 0 and max(values) <= _LARGEST)


def _are_quantiles(table: dict[str, Any], most: float) -> bool:
    values = [value for value in table.values() if value is not None]
    if not (_are_shares(tuple(table)) and {*map(type, values)} <= {int, float}):
        return False
    return not values or (min(values) >= 0 and max(values) <= most)


@lru_cache
def _are_shares(names: tuple[str, ...]) -> bool:
    try:
        return all(0 <= float(name) <= 1 for name in names)
    except ValueError:
        return False


def read_records(path: Path) -> Iterator[tuple[Record, int]]:
    """Yield each whole record with the byte offset after its line; a torn last line is left out.

    A line is whole once its newline is there: the newline is the last byte to be written.

    Raises:
        RunFolderError: A damaged line, or a second record of an image.
    """
    return _each(path, decode)


def scan_records(path: Path) -> Iterator[tuple[Record, int]]:
    """Yield what `read_records` yields, faster, for who needs no large integers.

    The same lines are refused. Integers of more than 64 bits, as a seed may be, come as floats.
    """
    return _each(path, scan)


def scan(line: bytes, *, where: str) -> Record:
    """Return what `decode` returns, but large integers as floats: at first sight, or looked at."""
    try:
        record = orjson.loads(line)
    except ValueError:
        return decode(line, where=where)
    return record if _fits(record) else decode(line, where=where)


def _fits(record: Any) -> bool:
    """Whether `read_certificate` surely takes a record under noise; of others nothing is said."""
    return (
        type(record) is dict
        and record.keys() >= _FIELDS
        and _wrong_type(record) is None
        and type(record["guarantee"]) is str
        and record["guarantee"] in GUARANTEES
        and 0.0 <= record["radius"] < math.inf
        and (record["prediction"] is not None or record["radius"] == 0.0)
        and type(record["counts0"]) is type(record["counts"]) is list
        and _has(record["reference"], _REFERENCE)
        and (record["audit"] is None or _has(record["audit"], _AUDIT))
    )


def _has(table: Any, names: frozenset[str]) -> bool:
    return type(table) is dict and table.keys() == names


def _each(path: Path, read: Callable[..., Record]) -> Iterator[tuple[Record, int]]:
    seen: set[int] = set()
    end = 0
    try:
        stream = open(path, "rb")  # noqa: SIM115 (closed by the with below)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror or error}") from error
    with stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            where = f"{path}, line {number},"
            record = read(line, where=where)
            if record["index"] in seen:
                raise RunFolderError(f"{where} is a second record of image {record['index']}")
            seen.add(record["index"])
            end += len(line)
            yield record, end
