"""Records of a run that is still being written: each is read once, and what they add up to."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from deqcert.errors import RunFolderError
from deqcert.results.records import scan
from deqcert.results.summary import L2

RECENT = 32
"""Records whose seconds tell how fast the run is now."""


class Follower:
    """Reads the lines that were appended to a file of records since it last looked.

    Args:
        path: ``records.jsonl``; it may not exist yet.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._end = 0
        self._line = 0
        self._seen: set[int] = set()

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield the records that are new; a line without its newline waits until it has one.

        Raises:
            RunFolderError: A damaged line, a second record of an image, or a file that became
                shorter than what was read.
        """
        try:
            stream = open(self.path, "rb")  # noqa: SIM115 (closed by the with below)
        except FileNotFoundError:
            return
        except OSError as error:
            raise RunFolderError(f"cannot read {self.path}: {error.strerror or error}") from error
        with stream:
            if stream.seek(0, 2) < self._end:
                raise RunFolderError(f"{self.path} lost records: another run was begun there")
            stream.seek(self._end)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                self._end += len(line)
                self._line += 1
                where = f"{self.path}, line {self._line},"
                record = scan(line, where=where)
                if record["index"] in self._seen:
                    raise RunFolderError(f"{where} is a second record of image {record['index']}")
                self._seen.add(record["index"])
                yield record


@dataclass
class Tally:
    """What the records seen so far add up to.

    Attributes:
        images: Records.
        abstentions: Records without a class.
        timed_out: Those of them that were given up at the time limit.
        unguaranteed: Records whose guarantee is ``none``.
        norm: Norm of the radii.
        seconds: Wall-clock seconds of the last `RECENT` images.
    """

    images: int = 0
    abstentions: int = 0
    timed_out: int = 0
    unguaranteed: int = 0
    norm: str = L2
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    _radii: list[float] = field(default_factory=list)  # of correct predictions, ascending

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one record."""
        self.images += 1
        self.abstentions += record["prediction"] is None
        self.unguaranteed += record["guarantee"] == "none"
        self.norm = record.get("norm", L2)
        self.seconds.append(float(record["seconds"]))
        self.timed_out += "time_limit" in record.get("plan", {})
        if record["correct"]:
            bisect.insort(self._radii, float(record["radius"]))

    def certified(self, radius: float) -> int:
        """Return how many images are correct and certified to at least `radius`."""
        return len(self._radii) - bisect.bisect_left(self._radii, radius)

    @property
    def largest_radius(self) -> float:
        """Largest radius of a correct prediction so far, 0 before the first."""
        return self._radii[-1] if self._radii else 0.0
