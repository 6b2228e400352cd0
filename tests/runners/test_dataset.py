"""`certify_dataset`: complete, resumable after any kill, and never mixing two configurations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deqcert.data import load_data
from deqcert.errors import ConfigurationError, RunFolderError, UnknownNameError
from deqcert.results import RunFolder
from deqcert.runners import Watch, certify_dataset
from deqcert.smoothing import Certifier
from tests.problems import LinearDEQ
from tests.runners.certify_slowly import certify
from tests.runners.subjects import small_model

ROOT = Path(__file__).parents[2]


def certifier(**settings) -> Certifier:
    defaults = {"sigma": 0.5, "n0": 20, "n": 100, "method": "standard"}
    return Certifier(small_model(), **{**defaults, **settings})


def timeless(folder: Path) -> list[dict]:
    return [{**record, "seconds": 0} for record in RunFolder.open(folder).records()]


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path):
    """SIGKILL in the middle of an image, twice; then a resume gives the uninterrupted records."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "tests.runners.certify_slowly", str(killed)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    for records in (2, 5):
        process = subprocess.Popen(command, cwd=ROOT, env=environment)
        _wait_for_records(process, killed, records)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        with open(killed / "records.jsonl", "ab") as file:
            file.write(b'{"prediction": 3, "rad')  # what a kill within a write would leave
    done = len(RunFolder.open(killed).done)
    assert 5 <= done < 12
    certify(str(killed))
    certify(str(whole))
    assert timeless(killed) == timeless(whole)
    table = [line.split("\t")[:5] for line in (killed / "cohen.tsv").read_text().splitlines()]
    assert table == [
        line.split("\t")[:5] for line in (whole / "cohen.tsv").read_text().splitlines()
    ]


def _wait_for_records(process: subprocess.Popen, folder: Path, count: int) -> None:
    for _ in range(6000):
        assert process.poll() is None, "the run ended before it could be killed"
        path = folder / "records.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)
    raise AssertionError("no records were written")


def test_every_image_of_the_selection_has_one_record(tmp_path: Path, digits):
    run = certify_dataset(certifier(), digits, out=tmp_path, skip=100, seed=0)
    records = list(run.records())
    assert [r["index"] for r in records] == [0, 100, 200, 300]
    assert [r["label"] for r in records] == [digits[i].label for i in (0, 100, 200, 300)]
    for record in records:
        assert record["correct"] == (record["prediction"] == record["label"])
        assert record["status"] == ("abstained" if record["prediction"] is None else "certified")
    configuration = json.loads((tmp_path / "run.json").read_text())["configuration"]
    assert configuration["sigma"] == 0.5
    assert configuration["data_digest"] == digits.digest


def test_a_limit_can_be_raised_later(tmp_path: Path, digits):
    certify_dataset(certifier(), digits, out=tmp_path, limit=2, seed=0)
    seen: list[int] = []
    watch = Watch(finished=lambda record: seen.append(record["index"]))
    run = certify_dataset(certifier(), digits, out=tmp_path, limit=5, seed=0, watch=watch)
    assert seen == [2, 3, 4]
    assert run.done == {0, 1, 2, 3, 4}


def test_without_a_seed_a_run_keeps_its_own(tmp_path: Path, digits):
    first = certify_dataset(certifier(), digits, out=tmp_path / "a", limit=1)
    again = certify_dataset(certifier(), digits, out=tmp_path / "a", limit=2)
    other = certify_dataset(certifier(), digits, out=tmp_path / "b", limit=1)
    assert first.configuration["seed"] == again.configuration["seed"]
    assert first.configuration["seed"] != other.configuration["seed"]
    assert {r["seed"] for r in again.records()} == {first.configuration["seed"]}


@pytest.mark.parametrize(
    ("change", "key"),
    [({"sigma": 0.25}, "sigma"), ({"n": 200}, "n"), ({"reference": "picard:5"}, "reference")],
)
def test_another_configuration_is_refused_and_nothing_lost(tmp_path: Path, digits, change, key):
    certify_dataset(certifier(), digits, out=tmp_path, limit=2, seed=0)
    before = (tmp_path / "records.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match=key):
        certify_dataset(certifier(**change), digits, out=tmp_path, limit=3, seed=0)
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_the_hardware_batch_size_may_change_between_sessions(tmp_path: Path, digits):
    certify_dataset(certifier(batch_size=16), digits, out=tmp_path / "a", limit=1, seed=0)
    certify_dataset(certifier(batch_size=64), digits, out=tmp_path / "a", limit=3, seed=0)
    certify_dataset(certifier(), digits, out=tmp_path / "b", limit=3, seed=0)
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")


def test_model_and_data_must_fit(tmp_path: Path, digits):
    other = Certifier(LinearDEQ(), sigma=0.5, n=100)
    with pytest.raises(ConfigurationError, match=r"shape \(1, 1, 2\)"):
        certify_dataset(other, digits, out=tmp_path / "x")
    for skip in (0, 1.5):
        with pytest.raises(ConfigurationError, match="skip must be an integer >= 1"):
            certify_dataset(certifier(), digits, out=tmp_path / "x", skip=skip)
    with pytest.raises(ConfigurationError, match="number of images must be an integer >= 1"):
        certify_dataset(certifier(), digits, out=tmp_path / "x", limit="3")
    with pytest.raises(UnknownNameError, match="did you mean 'local'"):
        certify_dataset(certifier(), digits, out=tmp_path / "x", runner="locall")
    assert not (tmp_path / "x").exists()
