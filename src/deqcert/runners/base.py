"""What a runner is: it turns image positions into certificates, in any order, anywhere."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from deqcert.certificate import AnyCertificate
from deqcert.data import Dataset
from deqcert.deterministic import IntervalCertifier, LipschitzCertifier
from deqcert.smoothing import Certifier

DeterministicCertifier = LipschitzCertifier | IntervalCertifier
AnyCertifier = Certifier | DeterministicCertifier

Working = Callable[[str, int | None, str, int, int], None]
"""Called as ``working(worker, index, stage, done, total)``: what a worker is at. The stage is
``idle``, without an image, where it waits for work, and ``gone`` where it is no more."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be certified.

    Attributes:
        certifier: The certifier.
        data: The images.
        indices: Which of them, in the order in which they are begun; taken as they are needed.
        seed: Seed of the noise; None where nothing draws.
    """

    certifier: AnyCertifier
    data: Dataset
    indices: Iterable[int]
    seed: int | None


class Runner(Protocol):
    """Certifies images of a data set.

    A certificate depends on certifier, image, seed and index alone, so every runner yields the same
    certificates, times aside; only one process, the caller, writes them down.
    """

    def facts(self, certifier: AnyCertifier) -> dict[str, Any]:
        """Return what a run's environment says of this runner, as JSON types.

        ``in_flight`` is the most images that are begun and not recorded at any moment.

        Raises:
            ConfigurationError: Its settings and the certifier do not fit.
        """
        ...

    def certify(self, work: Work, working: Working) -> Generator[AnyCertificate, None, None]:
        """Yield certificates as they are finished; close the iterator to stop early.

        Raises:
            WorkerError: Workers cannot be started, or are lost again and again.
            Exception: What certifying an image raises; the records before it are kept.
        """
        ...
