"""``cohen.tsv``: the log format of Cohen, Rosenfeld and Kolter (2019), locuslab/smoothing.

The field's analysis scripts read it. Two habits of the original are kept (abstention is -1, tabs),
one is not: radii are rounded down instead of to nearest, which could overstate them.

Logs that others published in this format are read as well, to stand beside runs in a report: as
published, since nothing in them can be checked.
"""

from __future__ import annotations

import csv
import datetime
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from os import PathLike
from pathlib import Path
from typing import Any

from deqcert.errors import ConfigurationError, RunFolderError
from deqcert.results.records import ABSTAINED, CERTIFIED, Record

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
DECIMALS = Decimal("0.000001")
PUBLISHED = "published"
"""Method and guarantee of records that come from a log of others."""

_NEEDED = ("idx", "label", "predict", "radius", "correct")
# What Python prints of a time span, or plain seconds.
_TIME = re.compile(r"(?:(?:(\d+) days?, )?(\d+):(\d\d):)?(\d+(?:\.\d+)?)")


def round_down(radius: float) -> str:
    """Return `radius` with six decimals, never above the exact value of the float.

    >>> round_down(0.9999999)
    '0.999999'
    """
    return str(Decimal(radius).quantize(DECIMALS, rounding=ROUND_FLOOR))


def cohen_row(record: Mapping[str, Any]) -> str:
    """Return the line of one record, without its newline."""
    prediction = -1 if record["prediction"] is None else record["prediction"]
    elapsed = datetime.timedelta(seconds=record["seconds"])
    return (
        f"{record['index']}\t{record['label']}\t{prediction}\t{round_down(record['radius'])}"
        f"\t{int(record['correct'])}\t{elapsed}"
    )


@dataclass(frozen=True, kw_only=True)
class CohenLog:
    """A published log, to be reported like a run: see `read_cohen`.

    Attributes:
        path: The file.
        configuration: Method (``published``), and sigma, n and alpha where they are known.
        rows: The records, in the order of the file.
    """

    path: Path
    configuration: Mapping[str, Any]
    rows: tuple[Record, ...]

    def records(self) -> Iterator[Record]:
        """Yield the records in the order of the file."""
        yield from self.rows

    @property
    def done(self) -> set[int]:
        """Indices of the images that have a record."""
        return {row["index"] for row in self.rows}


def read_cohen(
    path: str | PathLike[str],
    *,
    sigma: float | None = None,
    n: int | None = None,
    alpha: float | None = None,
) -> CohenLog:
    """Read a log that others published, to stand beside runs in a report.

    Its radii are taken as they are: no guarantee is checked or claimed. The format says nothing
    about noise, draws and failure probability; give what is known of them.

    >>> from deqcert.results import report
    >>> log = read_cohen("noise_0.50/test/sigma_0.50", sigma=0.5, n=100_000)  # doctest: +SKIP
    >>> print(report(["runs/first", log]))  # doctest: +SKIP

    Args:
        path: Tab-separated, with a header that names at least ``idx``, ``label``, ``predict`` (-1:
            abstained), ``radius`` (L2) and ``correct``; ``time`` is ``h:mm:ss`` or seconds. A torn
            last line is left out.
        sigma: Noise standard deviation, pixel units, > 0.
        n: Estimation draws per image, >= 1.
        alpha: Failure probability of one certificate, in (0, 1).

    Raises:
        RunFolderError: No such file, no rows, or a line that does not fit, named.
        ConfigurationError: A number out of range.
    """
    file = Path(path)
    known = _known(sigma, n, alpha)
    rows: dict[int, Record] = {}
    for where, values in _lines(file):
        record = {**_record(values, where), **known}
        if record["index"] in rows:
            raise RunFolderError(f"{where} is a second row of image {record['index']}")
        rows[record["index"]] = record
    if not rows:
        raise RunFolderError(f"{file} has no rows")
    return CohenLog(
        path=file, configuration={"method": PUBLISHED, **known}, rows=tuple(rows.values())
    )


def _known(sigma: float | None, n: int | None, alpha: float | None) -> dict[str, Any]:
    """Return what is known of a log, checked."""
    if sigma is not None and not (math.isfinite(sigma) and sigma > 0):
        raise ConfigurationError(f"sigma must be finite and > 0, but got {sigma}")
    if n is not None and n < 1:
        raise ConfigurationError(f"n must be >= 1, but got {n}")
    if alpha is not None and not 0 < alpha < 1:
        raise ConfigurationError(f"alpha must lie in (0, 1), but got {alpha}")
    return {"sigma": sigma, "n": n, "alpha": alpha}


def _lines(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each row stands, and its values by column."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RunFolderError(f"{file} is not text: {error}") from error
    lines = text.split("\n")
    columns = lines[0].rstrip("\r").split("\t")
    if missing := [name for name in _NEEDED if name not in columns]:
        raise RunFolderError(
            f"{file} is neither a run folder nor a log in the format of locuslab/smoothing: its "
            f"first line does not name {', '.join(missing)}"
        )
    last = len(lines)
    for number, values in enumerate(
        csv.reader(lines[1:], delimiter="\t", quoting=csv.QUOTE_NONE), start=2
    ):
        where = f"{file}, line {number},"
        if not values:
            continue
        if len(values) != len(columns):
            if number == last:  # no newline followed: torn
                return
            raise RunFolderError(f"{where} has {len(values)} columns, but needs {len(columns)}")
        yield where, dict(zip(columns, values, strict=True))


def _record(values: Mapping[str, str], where: str) -> Record:
    """Return a row as far as it is a record of a run."""
    try:
        index, label, predict = (int(values[name]) for name in ("idx", "label", "predict"))
        radius, correct = float(values["radius"]), int(values["correct"])
        seconds = _seconds(values["time"]) if "time" in values else None
    except ValueError as error:
        raise RunFolderError(f"{where} is damaged: {error}") from error
    faults = [
        "a negative index or label" if min(index, label) < 0 or predict < -1 else "",
        f"radius {radius}" if not (math.isfinite(radius) and radius >= 0) else "",
        "an abstention with a radius" if predict == -1 and radius != 0 else "",
        f"correct {correct}" if correct != int(predict == label) else "",
    ]
    if any(faults):
        raise RunFolderError(f"{where} cannot be: {', '.join(filter(None, faults))}")
    return {
        "index": index,
        "label": label,
        "prediction": None if predict == -1 else predict,
        "radius": radius,
        "correct": bool(correct),
        "status": ABSTAINED if predict == -1 else CERTIFIED,
        "seconds": seconds,
        "method": PUBLISHED,
        "guarantee": PUBLISHED,
    }


def _seconds(text: str) -> float:
    """Return the seconds of a time such as ``0:02:31.2``, ``1 day, 3:00:00`` or ``15.4``."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"no time: {text!r}")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
