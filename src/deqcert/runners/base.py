"""What a runner is: it turns image positions into certificates, in any order, anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from deqcert.certificate import AnyCertificate
from deqcert.data import Dataset
from deqcert.deterministic import IntervalCertifier, LipschitzCertifier
from deqcert.smoothing import Certifier
from deqcert.smoothing.sampling import Progress

DeterministicCertifier = LipschitzCertifier | IntervalCertifier
AnyCertifier = Certifier | DeterministicCertifier


class Runner(Protocol):
    """Certifies images of a data set.

    A certificate depends on certifier, image, seed and index alone, so every runner yields the same
    certificates, times aside; only one process, the caller, writes them down.
    """

    def certify(
        self,
        certifier: AnyCertifier,
        data: Dataset,
        indices: Iterable[int],
        *,
        seed: int | None,
        progress: Progress,
    ) -> Iterator[tuple[int, AnyCertificate]]:
        """Yield (index, certificate) as they are finished; the seed is None where nothing draws."""
        ...
