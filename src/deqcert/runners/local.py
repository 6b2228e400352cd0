"""The runner that is always there: one image after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from deqcert.certificate import Certificate
from deqcert.data import Dataset
from deqcert.smoothing import Certifier
from deqcert.smoothing.sampling import Progress


class LocalRunner:
    """Certifies in this process, in the order asked for."""

    def certify(
        self,
        certifier: Certifier,
        data: Dataset,
        indices: Iterable[int],
        *,
        seed: int,
        progress: Progress,
    ) -> Iterator[tuple[int, Certificate]]:
        """Yield (index, certificate), one image at a time."""
        for index in indices:
            image = data[index].image
            yield index, certifier.certify(image, seed=seed, index=index, progress=progress)
