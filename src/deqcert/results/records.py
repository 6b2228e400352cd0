"""One line of ``records.jsonl``: a certificate and what became of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
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
_TYPES: dict[str, tuple[type, ...]] = {
    "index": (int,),
    "label": (int,),
    "prediction": (int, type(None)),
    "radius": (float, int),
    "correct": (bool,),
    "seconds": (float, int),
}
_LONGEST = 1e12
"""Seconds that no image takes."""


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
    for name, kinds in _TYPES.items():
        if type(record[name]) not in kinds:
            return name
    return None if 0 <= record["seconds"] <= _LONGEST else "seconds"


def read_records(path: Path) -> Iterator[tuple[Record, int]]:
    """Yield each whole record with the byte offset after its line; a torn last line is left out.

    A line is whole once its newline is there: the newline is the last byte to be written.

    Raises:
        RunFolderError: A damaged line, or a second record of an image.
    """
    return _each(path, decode)


def scan_records(path: Path) -> Iterator[tuple[Record, int]]:
    """Yield what `read_records` yields, several times faster, for who needs no large integers.

    The same lines are refused. Integers of more than 64 bits, as a seed may be, come as floats.
    """
    return _each(path, _scanned)


def _scanned(line: bytes, *, where: str) -> Record:
    """Return the record in a whole `line`, if it is one at first sight; else look closely."""
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
