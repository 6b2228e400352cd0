"""Where a run is, from its folder alone: nothing is asked of the processes that work on it."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from deqcert.results.follow import Follower, Tally
from deqcert.results.progress import RunProgress, WorkerProgress, read_progress
from deqcert.results.run_folder import RECORDS, read_run_json
from deqcert.results.summary import LEVELS, LINF, check_radii, default_radii

RUNNING, FINISHED, STOPPED, GONE = "running", "finished", "stopped", "not running"
WINDOW = 600.0
"""Seconds over which the rate is measured."""
SILENCE = 600.0
"""Seconds without news after which a run on another machine counts as gone."""
MOST_RADII = 5


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A run at one moment.

    Attributes:
        path: The run folder.
        configuration: What decides the run's results.
        state: ``running``, ``finished`` (all images), ``stopped`` (in good order, before the end),
            or ``not running`` (killed, or older than progress files).
        at: Unix time of this snapshot.
        updated: Unix time of the last news of the run; None if there was none at all.
        done: Images with a record.
        total: Images of the run; None where no progress file tells.
        rate: Images per second; None while unknown, or where nothing runs.
        workers: What each worker does.
        process: Process and machine that write the run, in words; empty where unknown.
        norm: Norm of the radii.
        certified: (radius in pixel units, images correct and certified to it), of `images`.
        images: Records that the counts are of.
        abstentions: Records without a class.
        timed_out: Those of them that were given up at the time limit.
        unguaranteed: Records whose guarantee is ``none``.
    """

    path: Path
    configuration: Mapping[str, Any]
    state: str
    at: float
    updated: float | None
    done: int
    total: int | None
    rate: float | None
    workers: Mapping[str, WorkerProgress]
    process: str
    norm: str
    certified: tuple[tuple[float, int], ...]
    images: int
    abstentions: int
    timed_out: int
    unguaranteed: int

    @property
    def over(self) -> bool:
        """Whether nothing more will come, unless somebody resumes the run."""
        return self.state != RUNNING

    @property
    def left(self) -> float | None:
        """Seconds left, None while unknown."""
        if self.total is None or not self.rate:
            return None
        return (self.total - self.done) / self.rate


class LiveRun:
    """Follows a run folder; each `read` takes what is new.

    Args:
        path: The run folder.
        radii: Radii of the certified accuracy, pixel units; None takes multiples of sigma / 2.
        clock: Unix time in seconds.

    Raises:
        RunFolderError: Not a run folder, or damaged.
        ConfigurationError: A radius that is negative or not finite.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        radii: Iterable[float] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self.configuration: dict[str, Any] = read_run_json(self.path)["configuration"]
        self._radii = None if radii is None else check_radii(radii)
        self._clock = clock
        self._follower = Follower(self.path / RECORDS)
        self._tally = Tally()
        self._seen: deque[tuple[float, int]] = deque()

    def read(self) -> Snapshot:
        """Return where the run is now.

        Raises:
            RunFolderError: A damaged line among the records.
        """
        # The progress first: a run that it calls finished has all its records in place.
        progress = read_progress(self.path)
        for record in self._follower.new():
            self._tally.add(record)
        now, tally = self._clock(), self._tally
        done = (
            tally.images
            if progress is None
            else min(progress.total, max(progress.done, tally.images))
        )
        state = _state(progress, now)
        self._note(now, tally.images)
        return Snapshot(
            path=self.path,
            configuration=self.configuration,
            state=state,
            at=now,
            updated=self._last_news(progress),
            done=done,
            total=None if progress is None else progress.total,
            rate=None if progress is None or state != RUNNING else self._rate(progress),
            workers={} if progress is None or state != RUNNING else dict(progress.workers),
            process="" if progress is None else f"process {progress.pid} on {progress.host}",
            norm=tally.norm,
            certified=tuple((radius, tally.certified(radius)) for radius in self._grid()),
            images=tally.images,
            abstentions=tally.abstentions,
            timed_out=tally.timed_out,
            unguaranteed=tally.unguaranteed,
        )

    def _grid(self) -> list[float]:
        """Return the radii to show: few, and for runs with noise the same ones all the time."""
        if self._radii is not None:
            return self._radii
        sigma = self.configuration.get("sigma")
        if isinstance(sigma, (int, float)) and sigma > 0:
            return [round(k * sigma / 2, 10) for k in range(MOST_RADII)]
        if self._tally.norm == LINF:
            return [0.0, *(2**k / LEVELS for k in range(MOST_RADII - 1))]
        return default_radii([], self._tally.largest_radius)[:MOST_RADII]

    def _note(self, now: float, images: int) -> None:
        """Remember when how many records were there."""
        self._seen.append((now, images))
        while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW:
            self._seen.popleft()

    def _rate(self, progress: RunProgress) -> float | None:
        """Return images per second: as seen; at first, from the seconds of the last images."""
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        if after - before >= 3 and last > first:
            return (after - before) / (last - first)
        spent = sum(self._tally.seconds)
        workers = sum(worker.index is not None for worker in progress.workers.values())
        return max(1, workers) * len(self._tally.seconds) / spent if spent > 0 else None

    def _last_news(self, progress: RunProgress | None) -> float | None:
        """Return when the run last wrote something."""
        try:
            written = (self.path / RECORDS).stat().st_mtime
        except OSError:
            written = None
        known = [t for t in (written, progress and progress.updated) if t is not None]
        return max(known, default=None)


def _state(progress: RunProgress | None, now: float) -> str:
    """Return the run's state."""
    if progress is None:
        return GONE
    if progress.finished:
        return FINISHED if progress.done >= progress.total else STOPPED
    if progress.host == socket.gethostname() and os.name == "posix":
        return RUNNING if _is_alive(progress.pid) else GONE
    return RUNNING if now - progress.updated < SILENCE else GONE


def _is_alive(pid: int) -> bool:
    """Whether this machine has such a process."""
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return pid > 0
    return True
