"""The time limit of an image, which may be at several workers at once."""

from __future__ import annotations

import math
import threading
import time


class Clock:
    """Seconds of work on one image: what its finished tasks took, and its running ones take.

    A task whose worker was lost counts for nothing: the image is not to blame.

    Args:
        limit: Seconds of work allowed; None: no limit.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit = math.inf if limit is None else limit
        self._lock = threading.Lock()
        self._spent = 0.0
        self._running: dict[object, float] = {}

    def start(self) -> object:
        """Start the time of one task; return its token."""
        token = object()
        with self._lock:
            self._running[token] = time.monotonic()
        return token

    def stop(self, token: object, *, counts: bool) -> None:
        """Stop the time of one task."""
        with self._lock:
            took = time.monotonic() - self._running.pop(token)
            self._spent += took if counts else 0.0

    def spent(self) -> float:
        """Return the seconds of work so far."""
        with self._lock:
            now = time.monotonic()
            return self._spent + sum(now - started for started in self._running.values())

    def left(self) -> float:
        """Return the seconds left, <= 0 once the limit is reached."""
        return math.inf if math.isinf(self.limit) else self.limit - self.spent()
