"""Whether the records belong to this run, this data set and this table, and none is left out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from deqcert.checks.counts import is_serialized
from deqcert.checks.problems import Place, Problem
from deqcert.checks.read import Found, RunFiles
from deqcert.data import Dataset
from deqcert.results.cohen import HEADER, cohen_row
from deqcert.results.run_folder import COHEN, RECORDS, RUN
from deqcert.smoothing.proved import EXACT

# Field of the record: key of the configuration.
SAME = {
    "method": "method",
    "sigma": "sigma",
    "alpha": "alpha",
    "n0": "n0",
    "n": "n",
    "reference.solver": "reference",
    "reference.precision": "dtype",
    "reference.weights_digest": "weights_digest",
    "noise": "noise",
    "seed": "seed",
}
# Proved labels are those at the exact equilibrium, whatever computed them (THEORY 4).
PROVED = {"reference.solver": EXACT, "reference.precision": "exact"}
SERIALIZED = ("serial", "warmup", "start", "chains")


def check_same(
    place: Place,
    record: Mapping[str, Any],
    configuration: Mapping[str, Any],
    same: Mapping[str, str],
    exact: Mapping[str, Any],
) -> Iterator[Problem]:
    """Yield fields (of `same`, with their name in the run) that differ from the run.

    Fields in `exact` are held against the value there instead.
    """
    for field, key in same.items():
        outer, _, inner = field.partition(".")
        recorded = record[outer][inner] if inner else record[outer]
        if key in configuration:
            why = f"the run in {RUN} has another {key}: the record is not of this run"
            yield from place.expect(field, recorded, exact.get(field, configuration[key]), why)


def check_belongs(
    place: Place, record: Mapping[str, Any], configuration: Mapping[str, Any]
) -> Iterator[Problem]:
    """Yield fields of one record that are not those of the run."""
    exact = PROVED if record["method"] == "proved" else {}
    yield from check_same(place, record, configuration, SAME, exact)
    if is_serialized(record):
        for name in SERIALIZED:
            if name in configuration:
                why = f"the run in {RUN} has another {name}: the record is not of this run"
                yield from place.expect(name, record[name], configuration[name], why)
    why = "the run knows so many classes"
    classes = class_count(configuration, len(record["counts0"]))
    yield from place.expect("counts0", len(record["counts0"]), classes, why)
    yield from check_position(place, record, configuration, classes)


def class_count(configuration: Mapping[str, Any], default: int) -> int:
    """Return how many classes the run knows."""
    names = configuration.get("class_names")
    return len(names) if isinstance(names, list) else default


def check_position(
    place: Place, record: Mapping[str, Any], configuration: Mapping[str, Any], classes: int
) -> Iterator[Problem]:
    """Yield a label or an index that no record of the run can have."""
    if record["label"] >= classes:
        why = "the run knows so many classes"
        yield place.problem("label", record["label"], f"below {classes}", why)
    skip = configuration.get("skip")
    if type(skip) is int and skip > 0 and record["index"] % skip:
        why = "the run certifies every skip-th image: this one was chosen by other means"
        yield place.problem("index", record["index"], f"a multiple of {skip}", why)


def check_set(files: RunFiles, found: list[Found]) -> Iterator[Problem]:
    """Yield second records of an image, images left out, and margins that change in between."""
    seen: dict[int, int] = {}
    for item in found:
        index = item.record["index"]
        if index in seen:
            why = "two records of one image: the better of two runs is no certificate (THEORY 2)"
            line = f"already in line {seen[index]}"
            yield item.place.problem("index", index, line, why)
        seen.setdefault(index, item.place.line or 0)
    yield from _check_holes(files, seen)
    yield from _check_margins(files, found)


def _check_holes(files: RunFiles, seen: Mapping[int, int]) -> Iterator[Problem]:
    skip = files.configuration.get("skip")
    # Several workers finish in any order, but only images that were begun can be missing.
    begun = [e.get("in_flight", 1) for e in files.environments]
    bounded = all(type(count) is int for count in begun)
    if type(skip) is not int or skip < 1 or not seen or not bounded:
        return
    # Counted, not listed: a forged index may be as large as it likes.
    wanted = range(0, max(seen), skip)
    missing = len(wanted) - sum(index in wanted for index in seen)
    if missing > max(begun, default=1) - 1:
        first = itertools.islice((index for index in wanted if index not in seen), 10)
        shown = ", ".join(map(str, first)) + (" ..." if missing > 10 else "")
        why = "images are begun in order: what is left out changes the certified accuracy"
        yield Place(RECORDS).problem("index", f"{missing} missing", f"images {shown}", why)


def _check_margins(files: RunFiles, found: list[Found]) -> Iterator[Problem]:
    if len(files.environments) != 1 or not found:
        return
    margins = [item.record["reference"]["margin"] for item in found]
    usual = max(set(margins), key=margins.count)
    for item, margin in zip(found, margins, strict=True):
        why = "the numeric margin is measured once for a model on a machine (THEORY 1.1)"
        yield from item.place.expect("reference.margin", margin, usual, why)


def check_data(files: RunFiles, found: list[Found], data: Dataset) -> Iterator[Problem]:
    """Yield a data set or labels other than those of the run."""
    configuration = files.configuration
    facts = {
        "data": data.name,
        "split": data.split,
        "data_digest": data.digest,
        "class_names": list(data.class_names),
    }
    for name, value in facts.items():
        if name in configuration:
            why = "the run is about other images than these"
            yield from Place(RUN).expect(f"configuration.{name}", configuration[name], value, why)
    for item in found:
        index = item.record["index"]
        if index >= len(data):
            why = "the data set has no such image"
            yield item.place.problem("index", index, f"below {len(data)}", why)
            continue
        why = "certified accuracy is measured against the labels of the data set"
        label = int(data.labels[index])
        yield from item.place.expect("label", item.record["label"], label, why)


def check_table(table: list[str] | None, found: list[Found]) -> Iterator[Problem]:
    """Yield lines of ``cohen.tsv`` that are not those of the records."""
    if table is None:
        return
    places: list[int | None] = [None, *(item.record["index"] for item in found)]
    rows = [HEADER, *(cohen_row(item.record) for item in found)]
    why = "the field's analysis scripts read this file, and would show what the records do not"
    pairs = itertools.zip_longest(table, rows, places[: len(rows)])
    for number, (line, row, index) in enumerate(pairs, start=1):
        if line == row:
            continue
        yield from _row(Place(COHEN, number, index), line, row, why)


def _row(place: Place, line: str | None, row: str | None, why: str) -> Iterator[Problem]:
    """Yield the cells in which a line differs, or the line where it is missing or too many."""
    if line is None or row is None or line.count("\t") != row.count("\t"):
        yield place.problem("(line)", line or "(absent)", row or "(absent)", why)
        return
    names = HEADER.split("\t")
    for name, cell, expected in zip(names, line.split("\t"), row.split("\t"), strict=True):
        yield from place.expect(name, cell, expected, why)
