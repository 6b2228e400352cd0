"""``progress.json``: where a run is right now, for whoever watches its folder.

It says nothing that decides a record: a run goes on where it cannot be written, resuming ignores
it, and it is replaced in one step but not flushed to disk, so that a run never waits for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

PROGRESS = "progress.json"
EVERY = 1.0
"""Seconds that lie at least between two writes."""


@dataclass(frozen=True)
class WorkerProgress:
    """What one worker does.

    Attributes:
        index: Image it works on; None while it has none.
        stage: What it does with it: ``selection``, ``estimation``, ``audit`` ..., or ``idle``.
        done: Draws of the stage that are done.
        total: Draws of the stage.
        since: Unix time at which it began this image.
    """

    index: int | None
    stage: str
    done: int
    total: int
    since: float


@dataclass(frozen=True)
class RunProgress:
    """Where a run is.

    Attributes:
        pid: Process that writes the run folder.
        host: Name of its machine.
        started: Unix time at which this process began.
        updated: Unix time of this very state.
        done: Images of the run with a record, those of earlier processes included.
        total: Images of the run.
        workers: What each worker does, by its name.
        finished: Whether the process has ended by itself, with all images or without; False also
            of one that was killed.
    """

    pid: int
    host: str
    started: float
    updated: float
    done: int
    total: int
    workers: Mapping[str, WorkerProgress] = field(default_factory=dict)
    finished: bool = False


class ProgressFile:
    """Writes a run's progress, at most once per `EVERY` seconds; never raises.

    Args:
        folder: The run folder.
        done: Images that have a record already.
        total: Images of the run.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        done: int,
        total: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(folder) / PROGRESS
        self._clock = clock
        self._written = -math.inf
        self._workers: dict[str, WorkerProgress] = {}
        now = clock()
        self._state = RunProgress(
            pid=os.getpid(),
            host=socket.gethostname(),
            started=now,
            updated=now,
            done=done,
            total=total,
        )
        self._write()

    def work(self, worker: str, index: int | None, stage: str, done: int, total: int) -> None:
        """Note what a worker does."""
        now, before = self._clock(), self._workers.get(worker)
        since = before.since if before is not None and before.index == index else now
        self._workers[worker] = WorkerProgress(index, stage, done, total, since)
        self._write_if_due(now)

    def gone(self, worker: str) -> None:
        """Note that a worker is no more."""
        self._workers.pop(worker, None)
        self._write_if_due(self._clock())

    def finished_image(self) -> None:
        """Note one more record."""
        self._state = dataclasses.replace(self._state, done=self._state.done + 1)
        self._write_if_due(self._clock())

    def close(self) -> None:
        """Note that this process has ended in good order, at once."""
        self._workers.clear()
        self._state = dataclasses.replace(self._state, finished=True)
        self._write()

    def _write_if_due(self, now: float) -> None:
        # A clock set back must not silence the file for as long as it was set back.
        if not 0 <= now - self._written < EVERY:
            self._write()

    def _write(self) -> None:
        now = self._written = self._clock()
        state = dataclasses.replace(self._state, updated=now, workers=self._workers)
        temporary = self.path.with_name(PROGRESS + ".tmp")
        try:
            temporary.write_text(json.dumps(dataclasses.asdict(state)), encoding="utf-8")
            os.replace(temporary, self.path)
        except OSError:  # a full disk, a folder taken away: the records will say so
            with contextlib.suppress(OSError):
                temporary.unlink()


def read_progress(folder: str | PathLike[str]) -> RunProgress | None:
    """Return the last progress written into a run folder; None where there is none to be read."""
    try:
        content = json.loads((Path(folder) / PROGRESS).read_bytes())
        return _checked(content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _checked(content: dict[str, Any]) -> RunProgress:
    workers = {
        str(name): WorkerProgress(
            index=None if worker["index"] is None else int(worker["index"]),
            stage=str(worker["stage"]),
            done=int(worker["done"]),
            total=int(worker["total"]),
            since=float(worker["since"]),
        )
        for name, worker in content["workers"].items()
    }
    return RunProgress(
        pid=int(content["pid"]),
        host=str(content["host"]),
        started=float(content["started"]),
        updated=float(content["updated"]),
        done=int(content["done"]),
        total=int(content["total"]),
        workers=workers,
        finished=bool(content["finished"]),
    )
