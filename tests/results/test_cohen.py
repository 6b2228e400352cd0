"""The log in the field's format: written for its scripts, and read where others published it."""

from __future__ import annotations

import csv
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from deqcert.errors import ConfigurationError, RunFolderError
from deqcert.results import RunFolder, read_cohen, report
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


LOG = """idx\tlabel\tpredict\tradius\tcorrect\ttime
0\t3\t3\t0.486\t1\t16.6
20\t7\t-1\t0.0\t0\t0:00:13.736080
40\t1\t2\t1.69\t0\t1 day, 1:02:03.5
"""


def _log(folder: Path, text: str = LOG) -> Path:
    file = folder / "sigma_0.50"
    file.write_text(text)
    return file


def test_a_published_log_is_read_as_it_is(tmp_path: Path) -> None:
    log = read_cohen(_log(tmp_path), sigma=0.5, n=100_000)
    first, abstained, wrong = log.records()
    assert (first["index"], first["label"], first["prediction"]) == (0, 3, 3)
    assert (first["radius"], first["correct"], first["seconds"]) == (0.486, True, 16.6)
    assert (abstained["prediction"], abstained["radius"], abstained["status"]) == (
        None,
        0.0,
        "abstained",
    )
    assert abstained["seconds"] == pytest.approx(13.73608)
    assert (wrong["correct"], wrong["seconds"]) == (False, 25 * 3600 + 2 * 60 + 3.5)
    assert {row["guarantee"] for row in log.records()} == {"published"}
    assert log.configuration == {"method": "published", "sigma": 0.5, "n": 100_000, "alpha": None}
    assert log.done == {0, 20, 40}


def test_our_own_table_reads_back(tmp_path: Path) -> None:
    with RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT) as run:
        run.append(certificate(0, radius=0.3, seconds=3723.25), label=0)
        run.append(certificate(7, prediction=None, radius=0.0), label=1)
        written = list(run.records())
    for ours, read in zip(written, read_cohen(tmp_path / "cohen.tsv").records(), strict=True):
        for key in ("index", "label", "prediction", "correct", "status", "seconds"):
            assert read[key] == ours[key]
        assert 0 <= ours["radius"] - read["radius"] < 1e-6


@pytest.mark.parametrize("text", [LOG + "60\t5\t", LOG + "60", LOG.replace("\n", "\r\n"), LOG[:-1]])
def test_a_torn_last_line_and_other_line_ends(tmp_path: Path, text: str) -> None:
    assert read_cohen(_log(tmp_path, text)).done == {0, 20, 40}


def test_without_times_and_with_more_columns(tmp_path: Path) -> None:
    log = read_cohen(
        _log(tmp_path, "idx\tlabel\tpredict\tradius\tcorrect\tp\n1\t2\t2\t.5\t1\t.9\n")
    )
    (row,) = log.records()
    assert (row["radius"], row["seconds"]) == (0.5, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither a run folder nor a log"),
        ("a,b\n", "does not name idx, label, predict, radius, correct"),
        ("idx\tlabel\tpredict\tradius\tcorrect\ttime\n", "has no rows"),
        (LOG + "60\t5\t\n60\t5\t5\t1.0\t1\t1.0\n", "line 5, has 3 columns, but needs 6"),
        (LOG + "60\tx\t5\t1.0\t1\t1.0\n", "line 5, is damaged"),
        (LOG + "60\t5\t5\t1.0\t1\tsoon\n", "no time: 'soon'"),
        (LOG + "60\t5\t5\tnan\t1\t1.0\n", "line 5, cannot be: radius nan"),
        (LOG + "60\t5\t5\t-1.0\t1\t1.0\n", "radius -1.0"),
        (LOG + "60\t5\t-1\t1.0\t0\t1.0\n", "an abstention with a radius"),
        (LOG + "60\t5\t4\t1.0\t1\t1.0\n", "correct 1"),
        (LOG + "-2\t5\t5\t1.0\t1\t1.0\n", "negative"),
        (LOG + "20\t5\t5\t1.0\t1\t1.0\n", "a second row of image 20"),
    ],
)
def test_what_is_no_log_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RunFolderError, match=re.escape(message)) as caught:
        read_cohen(_log(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="cannot read"):
        read_cohen(tmp_path / "nowhere.tsv")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(RunFolderError, match="is not text"):
        read_cohen(tmp_path / "bytes")


@pytest.mark.parametrize(
    ("known", "message"),
    [({"sigma": 0.0}, "sigma"), ({"n": 0}, "n must"), ({"alpha": 1.0}, "alpha must")],
)
def test_what_is_said_of_a_log_is_checked(tmp_path: Path, known: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_cohen(_log(tmp_path), **known)


def test_a_log_beside_a_run_is_as_published(tmp_path: Path) -> None:
    with RunFolder.create_or_resume(tmp_path / "ours", CONFIGURATION, ENVIRONMENT) as run:
        for index in (0, 20, 40):
            run.append(certificate(index, radius=0.4), label=0)
    log = _log(tmp_path)
    made = report([tmp_path / "ours", log], radii=[0.0, 0.4, 0.5], out=tmp_path / "report")
    ours, theirs = made.summaries
    assert theirs.certified_accuracy == pytest.approx((1 / 3, 1 / 3, 0.0))
    assert theirs.high_probability_accuracy is None
    assert (theirs.guarantee, theirs.sigma, theirs.alpha) == ("published", None, None)
    assert (theirs.abstentions, theirs.cell_evaluations) == (1, None)
    assert ours.high_probability_accuracy is not None
    text = (tmp_path / "report" / "table.md").read_text()
    assert "as published, not checked" in text
    assert "sigma, n, alpha unknown" in text
    assert not any(note.startswith("WARNING") for note in made.notes)
    assert (tmp_path / "report" / "certified_accuracy.png").stat().st_size > 10_000
    known = report([tmp_path / "ours", read_cohen(log, sigma=0.25, n=1000, alpha=0.001)])
    assert known.summaries[1].sigma == 0.25
    assert "sigma 0.25, n 1000, alpha 0.001 as given" in " ".join(known.notes)


def test_a_log_alone_writes_nothing_beside_itself(tmp_path: Path) -> None:
    log = _log(tmp_path)
    assert report(log).files == ()
    assert [file.name for file in tmp_path.iterdir()] == [log.name]


def test_other_images_are_said(tmp_path: Path) -> None:
    with RunFolder.create_or_resume(tmp_path / "ours", CONFIGURATION, ENVIRONMENT) as run:
        run.append(certificate(0), label=0)
    made = report([tmp_path / "ours", _log(tmp_path)])
    assert any("different images" in note and "1 in common" in note for note in made.notes)
