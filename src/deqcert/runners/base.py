"""What a runner is: it turns image positions into certificates, in any order, anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from deqcert.certificate import Certificate
from deqcert.data import Dataset
from deqcert.smoothing import Certifier
from deqcert.smoothing.sampling import Progress


class Runner(Protocol):
    """Certifies images of a data set.

    A certificate depends on certifier, image, seed and index alone, so every runner yields the same
    certificates, times aside; only one process, the caller, writes them down.
    """

    def certify(
        self,
        certifier: Certifier,
        data: Dataset,
        indices: Iterable[int],
        *,
        seed: int,
        progress: Progress,
    ) -> Iterator[tuple[int, Certificate]]:
        """Yield (index, certificate) as they are finished."""
        ...
