"""The time limit of an image, which may be at several workers at once."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

LONGEST_LOOK = 2.0
"""Seconds between two looks at the clock that count at most. Whoever waits for a task looks more
often, unless this machine was asleep or stopped meanwhile, which is no fault of the image."""


class Clock:
    """Seconds of work on one image: what its finished tasks took, and its running ones take.

    A task whose worker was lost counts for nothing: the image is not to blame.

    Args:
        limit: Seconds of work allowed; None: no limit.
        now: Tells the time in seconds.
    """

    def __init__(self, limit: float | None, *, now: Callable[[], float] = time.monotonic) -> None:
        self.limit = math.inf if limit is None else limit
        self._now = now
        self._lock = threading.Lock()
        self._spent = 0.0
        self._running: dict[object, tuple[float, float]] = {}  # seconds so far, time of last look

    def start(self) -> object:
        """Start the time of one task; return its token."""
        token = object()
        with self._lock:
            self._running[token] = (0.0, self._now())
        return token

    def stop(self, token: object, *, counts: bool) -> None:
        """Stop the time of one task."""
        with self._lock:
            self._look()
            took, _ = self._running.pop(token)
            self._spent += took if counts else 0.0

    def spent(self) -> float:
        """Return the seconds of work so far."""
        with self._lock:
            self._look()
            return self._spent + sum(took for took, _ in self._running.values())

    def left(self) -> float:
        """Return the seconds left, <= 0 once the limit is reached."""
        return self.limit - self.spent()

    def _look(self) -> None:
        now = self._now()
        for token, (took, last) in self._running.items():
            self._running[token] = (took + min(now - last, LONGEST_LOOK), now)
