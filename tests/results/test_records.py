"""Resuming reads records fast, and refuses exactly what reading them closely refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deqcert.errors import RunFolderError
from deqcert.results.records import encode, make_record, read_records, scan_records
from tests.results.made import audited, certain, certificate

RECORDS = {
    "standard": make_record(certificate(3), 0),
    "audited": make_record(audited(3, drawn=40, disagreements=1), 0),
    "abstained": make_record(certificate(3, prediction=None, radius=0.0), 1),
    "deterministic": make_record(certain(3), 0),
}
VALUES = (None, -1, 0, 0.0, 0.5, "x", [], {}, True, [1, 2])


def outcome(read: Callable[[Path], Iterator[tuple[Any, int]]], path: Path) -> Any:
    """What reading gives, or why it is refused."""
    try:
        return list(read(path))
    except RunFolderError as error:
        return str(error)


def damaged(kind: str) -> Iterator[bytes]:
    """Lines that are, or are near, the record of that kind."""
    record = RECORDS[kind]
    line = encode(record).encode()
    yield line
    for name, before in record.items():
        yield encode({key: value for key, value in record.items() if key != name}).encode()
        for value in VALUES:
            yield encode({**record, name: value}).encode()
        if isinstance(before, dict):
            yield encode({**record, name: {**before, "more": 1}}).encode()
            yield encode({**record, name: dict(list(before.items())[1:])}).encode()
    for at in range(0, len(line), 7):
        yield line[:at] + b"\x00" + line[at + 1 :]
        yield line[:at] + line[at + 1 :]
    yield line.replace(b'"radius":0.5', b'"radius":NaN')
    yield line.replace(b'"radius":0.5', b'"radius":1e999')


@pytest.mark.parametrize("kind", RECORDS)
def test_both_ways_of_reading_agree_on_every_damage(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    refused = taken = 0
    for line in damaged(kind):
        path.write_bytes(line + b"\n")
        fast, slow = outcome(scan_records, path), outcome(read_records, path)
        assert fast == slow, line
        refused += isinstance(slow, str)
        taken += not isinstance(slow, str)
    assert refused > 100
    assert taken > 30


def test_both_leave_out_a_torn_line_and_refuse_a_second_record(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    line = encode(RECORDS["standard"]) + "\n"
    path.write_text(line + line[:-1])
    for read in (read_records, scan_records):
        assert list(read(path)) == [(json.loads(line), len(line))]
    path.write_text(line + line)
    for read in (read_records, scan_records):
        with pytest.raises(RunFolderError, match="line 2, is a second record of image 3"):
            list(read(path))


def test_a_seed_of_any_size_hinders_no_resume(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    seed = 3**100
    path.write_text(encode(make_record(certificate(3, seed=seed), 0)) + "\n")
    ((record, _),) = read_records(path)
    assert record["seed"] == seed
    ((record, _),) = scan_records(path)
    assert record["index"] == 3
