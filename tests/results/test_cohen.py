"""The log in the field's format, read back the way its own scripts read it."""

from __future__ import annotations

import csv
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from deqcert.results import RunFolder
from deqcert.results.cohen import cohen_row, round_down
from deqcert.results.records import make_record
from tests.results.made import CONFIGURATION, ENVIRONMENT, certificate


@pytest.mark.parametrize(
    ("radius", "text"),
    [
        (0.0, "0.000000"),
        (0.5, "0.500000"),
        (0.9999999, "0.999999"),
        (1e-9, "0.000000"),
        (0.29, "0.289999"),  # the float 0.29 is 0.28999999999999998002
        (math.nextafter(0.25, 0), "0.249999"),
        (12.3456789, "12.345678"),
    ],
)
def test_round_down_by_hand(radius: float, text: str) -> None:
    assert round_down(radius) == text


def test_round_down_is_never_above_and_loses_less_than_a_millionth() -> None:
    radii = np.random.Generator(np.random.PCG64(0)).uniform(0, 4, 2000)
    for radius in radii:
        exact, shown = Fraction(float(radius)), Fraction(round_down(float(radius)))
        assert 0 <= exact - shown < Fraction(1, 10**6)
        assert float(round_down(float(radius))) <= radius


def test_row_by_hand() -> None:
    record = make_record(certificate(20, radius=0.7654321, seconds=3723.4567891), label=0)
    assert cohen_row(record) == "20\t0\t0\t0.765432\t1\t1:02:03.456789"
    record = make_record(certificate(40, prediction=None, radius=0.0, seconds=12.0), label=2)
    assert cohen_row(record) == "40\t2\t-1\t0.000000\t0\t0:00:12"


def test_table_has_the_fields_columns_and_follows_the_records(tmp_path: Path) -> None:
    with RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT) as run:
        run.append(certificate(0, radius=0.3), label=0)
        run.append(certificate(20, prediction=None, radius=0.0), label=1)
        run.append(certificate(40, radius=0.9), label=1)
    with open(tmp_path / "cohen.tsv", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert list(rows[0]) == ["idx", "label", "predict", "radius", "correct", "time"]
    assert [int(row["idx"]) for row in rows] == [0, 20, 40]
    # code/analyze.py of locuslab/smoothing: (correct & (radius >= r)).mean()
    at_quarter = [int(row["correct"]) and float(row["radius"]) >= 0.25 for row in rows]
    assert sum(at_quarter) / len(rows) == pytest.approx(1 / 3)
    assert all(re.fullmatch(r"\d+:\d\d:\d\d(\.\d{6})?", row["time"]) for row in rows)


def test_table_is_rebuilt_from_the_records_on_resume(tmp_path: Path) -> None:
    with RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT) as run:
        for index in range(3):
            run.append(certificate(index), label=0)
    whole = (tmp_path / "cohen.tsv").read_text()
    (tmp_path / "cohen.tsv").write_text(whole[:-30])
    RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT).close()
    assert (tmp_path / "cohen.tsv").read_text() == whole
    (tmp_path / "cohen.tsv").unlink()
    RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT).close()
    assert (tmp_path / "cohen.tsv").read_text() == whole
