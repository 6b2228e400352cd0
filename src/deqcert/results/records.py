"""One line of ``records.jsonl``: a certificate and what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deqcert.certificate import AnyCertificate, read_certificate
from deqcert.errors import DeqcertError, RunFolderError

Record = dict[str, Any]

CERTIFIED, ABSTAINED = "certified", "abstained"


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
        record = json.loads(line)
        read_certificate(record)
        missing = {"label", "correct", "status"} - record.keys()
        if missing:
            raise ValueError(f"missing {', '.join(sorted(missing))}")
    except (ValueError, TypeError, AttributeError, DeqcertError) as error:
        raise RunFolderError(f"{where} is damaged: {error}") from error
    return record


def read_records(path: Path) -> Iterator[tuple[Record, int]]:
    """Yield each whole record with the byte offset after its line; a torn last line is left out.

    A line is whole once its newline is there: the newline is the last byte to be written.

    Raises:
        RunFolderError: A damaged line, or a second record of an image.
    """
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
            record = decode(line, where=where)
            if record["index"] in seen:
                raise RunFolderError(f"{where} is a second record of image {record['index']}")
            seen.add(record["index"])
            end += len(line)
            yield record, end
