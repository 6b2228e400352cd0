"""``progress.json``: what a watcher reads, and that writing it never harms a run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from deqcert.results import RunFolder
from deqcert.results.progress import PROGRESS, ProgressFile, WorkerProgress, read_progress
from tests.results.made import CONFIGURATION, ENVIRONMENT, certificate


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    clock = Clock()
    file = ProgressFile(tmp_path, done=3, total=10, clock=clock)
    clock.now = 1002.5
    file.work("0", 7, "estimation", 400, 10_000)
    found = read_progress(tmp_path)
    assert found is not None
    assert (found.pid, found.started, found.updated) == (os.getpid(), 1000.0, 1002.5)
    assert (found.done, found.total, found.finished) == (3, 10, False)
    assert found.workers == {"0": WorkerProgress(7, "estimation", 400, 10_000, 1002.5)}
    keys = {"pid", "host", "started", "updated", "done", "total", "workers", "finished"}
    content = json.loads((tmp_path / PROGRESS).read_text())
    assert content.keys() == keys
    assert content["workers"]["0"].keys() == {"index", "stage", "done", "total", "since"}


def test_it_is_written_at_most_once_a_second(tmp_path: Path) -> None:
    clock = Clock()
    file = ProgressFile(tmp_path, done=0, total=2, clock=clock)
    for step in range(20):  # over two seconds
        clock.now = 1000.0 + step / 8
        file.work("0", 0, "estimation", step, 20)
        found = read_progress(tmp_path)
        assert found is not None
        shown = found.workers["0"].done if found.workers else None
        assert shown == {0: None, 1: 8, 2: 16}[step // 8]
    clock.now = 500.0  # set back
    file.work("0", 0, "estimation", 20, 20)
    found = read_progress(tmp_path)
    assert found is not None
    assert found.updated == 500.0


def test_since_is_when_the_image_was_begun(tmp_path: Path) -> None:
    clock = Clock()
    file = ProgressFile(tmp_path, done=0, total=2, clock=clock)
    for clock.now, index in ((1010.0, 4), (1020.0, 4), (1030.0, 5)):
        file.work("a", index, "estimation", 1, 2)
    found = read_progress(tmp_path)
    assert found is not None
    assert found.workers["a"].since == 1030.0
    file.finished_image()
    file.close()
    found = read_progress(tmp_path)
    assert found is not None
    assert (found.finished, found.done, found.workers) == (True, 1, {})


def test_nothing_it_cannot_write_harms_the_run(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "absent", done=0, total=1)
    file.finished_image()
    file.close()
    assert not (tmp_path / "absent").exists()
    (tmp_path / PROGRESS).mkdir()  # cannot be replaced by a file
    ProgressFile(tmp_path, done=0, total=1).close()
    assert not (tmp_path / (PROGRESS + ".tmp")).exists()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "7", '{"pid": 1}', '{"workers": []}', '{"workers": {"0": 3}}', "\xff"],
)
def test_nothing_that_can_be_read_is_none(tmp_path: Path, content: str) -> None:
    assert read_progress(tmp_path) is None
    (tmp_path / PROGRESS).write_bytes(content.encode("latin-1"))
    assert read_progress(tmp_path) is None


def test_it_hinders_no_resume(tmp_path: Path) -> None:
    """Also where it is all that a run killed before its ``run.json`` has left."""
    ProgressFile(tmp_path, done=0, total=2)
    (tmp_path / (PROGRESS + ".tmp")).write_text("{")
    for index in range(2):
        with RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT) as run:
            run.append(certificate(index), label=0)
    assert RunFolder.open(tmp_path).done == {0, 1}
