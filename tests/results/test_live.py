"""Where a run is, told by its folder alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from deqcert.errors import ConfigurationError, RunFolderError
from deqcert.results import RunFolder
from deqcert.results.follow import Follower, Tally
from deqcert.results.live import FINISHED, GONE, RUNNING, SILENCE, STOPPED, LiveRun
from deqcert.results.live_view import duration, line, picture, rate, state, title
from deqcert.results.progress import ProgressFile
from tests.results.made import CONFIGURATION, ENVIRONMENT, certain, certificate

KILLED = """
import sys, time
from deqcert.results import RunFolder
from deqcert.results.progress import ProgressFile
from tests.results.made import CONFIGURATION, ENVIRONMENT, certificate
with RunFolder.create_or_resume(sys.argv[1], CONFIGURATION, ENVIRONMENT) as run:
    progress = ProgressFile(sys.argv[1], done=0, total=5)
    run.append(certificate(0), label=0)
    progress.finished_image()
    progress.work("local", 1, "estimation", 40, 1000)
    print("ready", flush=True)
    time.sleep(600)
"""


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_run(folder: Path, count: int = 0) -> RunFolder:
    run = RunFolder.create_or_resume(folder, CONFIGURATION, ENVIRONMENT)
    for index in range(count):
        run.append(certificate(index, radius=0.1 * index), label=0)
    return run


def shown(snapshot: object, width: int = 100) -> str:
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(picture(snapshot))  # pyright: ignore[reportArgumentType]
    return capture.get()


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    with a_run(tmp_path, 3) as run:
        follower = Follower(file)
        assert [record["index"] for record in follower.new()] == [0, 1, 2]
        read = file.stat().st_size
        run.append(certificate(3), label=0)
    content = file.read_bytes()
    file.write_bytes(b"#" * read + content[read:])  # nobody may look at the first three again
    assert [record["index"] for record in follower.new()] == [3]
    assert list(follower.new()) == []


def test_a_second_record_of_an_image_is_refused(tmp_path: Path) -> None:
    a_run(tmp_path, 2).close()
    file = tmp_path / "records.jsonl"
    file.write_bytes(2 * file.read_bytes())
    with pytest.raises(RunFolderError, match="line 3, is a second record of image 0"):
        list(Follower(file).new())


def test_a_torn_last_line_waits_for_its_end(tmp_path: Path) -> None:
    a_run(tmp_path, 2).close()
    file = tmp_path / "records.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    follower = Follower(file)
    assert [record["index"] for record in follower.new()] == [0]
    assert list(follower.new()) == []
    file.write_bytes(whole)
    assert [record["index"] for record in follower.new()] == [1]


@pytest.mark.parametrize("line", [b"{}\n", b"nonsense\n", b"[1]\n", b"\xff\n"])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    a_run(tmp_path, 1).close()
    with open(tmp_path / "records.jsonl", "ab") as stream:
        stream.write(line)
    with pytest.raises(RunFolderError, match=r"records\.jsonl, line 2, is damaged"):
        list(Follower(tmp_path / "records.jsonl").new())


def test_a_file_that_lost_records_is_refused(tmp_path: Path) -> None:
    a_run(tmp_path, 3).close()
    follower = Follower(tmp_path / "records.jsonl")
    assert len(list(follower.new())) == 3
    (tmp_path / "records.jsonl").write_bytes(b"")
    with pytest.raises(RunFolderError, match="lost records"):
        list(follower.new())


def test_tally_counts_as_the_report_does() -> None:
    tally = Tally()
    for index, (radius, correct) in enumerate([(0.5, True), (0.25, True), (0.9, False)]):
        tally.add({**certificate(index, radius=radius).to_json(), "correct": correct})
    tally.add({**certificate(3, prediction=None, radius=0.0).to_json(), "correct": False})
    assert [tally.certified(r) for r in (0.0, 0.25, 0.26, 0.5, 0.51)] == [2, 2, 1, 1, 0]
    assert (tally.images, tally.abstentions, tally.unguaranteed) == (4, 1, 0)


def test_a_run_under_way(tmp_path: Path) -> None:
    clock = Clock()
    with a_run(tmp_path) as run:
        progress = ProgressFile(tmp_path, done=0, total=8, clock=clock)
        live = LiveRun(tmp_path, clock=clock)
        first = live.read()
        assert (first.state, first.done, first.total, first.rate) == (RUNNING, 0, 8, None)
        assert "no records yet" in shown(first)
        for index in range(4):
            run.append(certificate(index, radius=0.3 * index, seconds=20.0), label=0)
            progress.finished_image()
        clock.now += 18.0
        progress.work("one", 4, "estimation", 500, 1000)
        clock.now += 2.0
        progress.work("two", None, "idle", 0, 0)
        snapshot = live.read()
    assert (snapshot.done, snapshot.images) == (4, 4)
    assert snapshot.rate == pytest.approx(4 / 20)
    assert snapshot.left == pytest.approx(4 / (4 / 20))
    assert snapshot.certified == ((0.0, 4), (0.25, 3), (0.5, 2), (0.75, 1), (1.0, 0))
    assert line(snapshot) == (
        "4/8 images (50 %), 12/min, 20 s left | certified so far: r = 0.00 100.0 %, "
        "r = 0.25 75.0 %, r = 0.50 50.0 %, r = 0.75 25.0 %, r = 1.00 0.0 % | "
        "abstentions 0 (0.0 %) | one: image 4, estimation 500/1,000"
    )
    text = shown(snapshot)
    assert "4/8" in text
    assert "idle" in text
    assert "500/1,000" in text
    assert "running (process" in text


def test_the_first_rate_comes_from_the_images_themselves(tmp_path: Path) -> None:
    clock = Clock()
    with a_run(tmp_path, 2):
        progress = ProgressFile(tmp_path, done=2, total=10, clock=clock)
        clock.now += 2
        progress.work("a", 2, "estimation", 0, 10)
        clock.now += 2
        progress.work("b", 3, "estimation", 0, 10)
        snapshot = LiveRun(tmp_path, clock=clock).read()
    assert snapshot.rate == pytest.approx(2 / 1.5)  # two workers, 1.5 s an image


def test_finished_stopped_and_resumed_with_fewer(tmp_path: Path) -> None:
    with a_run(tmp_path, 4):
        for total, expected in ((4, FINISHED), (6, STOPPED), (3, FINISHED)):
            ProgressFile(tmp_path, done=min(4, total), total=total).close()
            snapshot = LiveRun(tmp_path).read()
            assert (snapshot.state, snapshot.over) == (expected, True)
            assert snapshot.done == min(4, total)
            assert (snapshot.rate, snapshot.workers) == (None, {})
    assert "finished: 3 of 3 images" in state(snapshot)


def test_a_killed_driver_is_not_running(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == b"ready\n"
        assert LiveRun(tmp_path).read().state == RUNNING
        process.send_signal(signal.SIGKILL)
        process.wait()
    snapshot = LiveRun(tmp_path).read()
    assert (snapshot.state, snapshot.done, snapshot.total) == (GONE, 1, 5)
    assert state(snapshot).startswith("not running since 20")
    assert state(snapshot).endswith("the same command goes on from there")


def test_another_machine_is_gone_after_a_long_silence(tmp_path: Path) -> None:
    clock = Clock()
    with a_run(tmp_path):
        ProgressFile(tmp_path, done=0, total=8, clock=clock)
        file = tmp_path / "progress.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "host": "elsewhere"}))
        live = LiveRun(tmp_path, clock=clock)
        assert live.read().state == RUNNING
        clock.now += SILENCE + 1
        assert live.read().state == GONE


def test_a_run_without_a_progress_file(tmp_path: Path) -> None:
    a_run(tmp_path, 2).close()
    snapshot = LiveRun(tmp_path).read()
    assert (snapshot.state, snapshot.done, snapshot.total) == (GONE, 2, None)
    assert line(snapshot).startswith("2 images | certified so far: r = 0.00 100.0 %")
    assert state(snapshot).startswith("not running since 20")
    assert shown(snapshot)


def test_radii_of_other_norms_and_ones_own(tmp_path: Path) -> None:
    settings = {"method": "interval", "data": "digits", "split": "test"}
    with RunFolder.create_or_resume(tmp_path, settings, ENVIRONMENT) as run:
        run.append(certain(0, method="interval", radius=3 / 255), label=0)
    snapshot = LiveRun(tmp_path).read()
    assert "Linf r = 2/255 100.0 %, Linf r = 4/255 0.0 %" in line(snapshot)
    assert title(snapshot) == f"{tmp_path}: interval, digits test"
    assert LiveRun(tmp_path, radii=[0.01, 0.02]).read().certified == ((0.01, 1), (0.02, 0))
    with pytest.raises(ConfigurationError, match="finite and >= 0"):
        LiveRun(tmp_path, radii=[-1.0])


def test_images_at_the_time_limit_are_said(tmp_path: Path) -> None:
    late = {"method": "abstain", "reason": "not done within the time limit", "time_limit": 60.0}
    with a_run(tmp_path, 1) as run:
        run.append(certificate(8, prediction=None, radius=0.0, plan=late), label=0)
        run.append(certificate(9, prediction=None, radius=0.0), label=0)
    text = "abstentions 2 (66.7 %), 1 of them at the time limit"
    assert text in line(LiveRun(tmp_path).read())
    assert text in shown(LiveRun(tmp_path).read())


def test_no_guarantee_is_said(tmp_path: Path) -> None:
    with a_run(tmp_path) as run:
        run.append(certificate(0, guarantee="none", method="srs-paper"), label=0)
    snapshot = LiveRun(tmp_path).read()
    assert "NO GUARANTEE" in line(snapshot)
    assert "NO GUARANTEE" in shown(snapshot)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (3723, "1 h 02 min"), (2e5, "2 d 07 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(12.345, "12.3/s"), (0.5, "30/min"), (0.01, "36/h"), (1e-5, "0.864/day")],
)
def test_rates(per_second: float, text: str) -> None:
    assert rate(per_second) == text
