"""The runner that is always there: one image, or small batch, after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from deqcert.certificate import AnyCertificate, DeterministicCertificate
from deqcert.data import Dataset
from deqcert.runners.base import AnyCertifier, DeterministicCertifier
from deqcert.smoothing import Certifier
from deqcert.smoothing.sampling import Progress


class LocalRunner:
    """Certifies in this process, in the order asked for."""

    def certify(
        self,
        certifier: AnyCertifier,
        data: Dataset,
        indices: Iterable[int],
        *,
        seed: int | None,
        progress: Progress,
    ) -> Iterator[tuple[int, AnyCertificate]]:
        """Yield (index, certificate), one image at a time."""
        if not isinstance(certifier, Certifier):
            yield from _in_batches(certifier, data, list(indices))
            return
        for index in indices:
            image = data[index].image
            yield index, certifier.certify(image, seed=seed, index=index, progress=progress)


def _in_batches(
    certifier: DeterministicCertifier, data: Dataset, indices: list[int]
) -> Iterator[tuple[int, DeterministicCertificate]]:
    """Yield (index, certificate), those of one batch before the next is begun."""
    size = certifier.subject.batch_size
    for at in range(0, len(indices), size):
        chosen = indices[at : at + size]
        images = torch.stack([data[index].image for index in chosen])
        yield from zip(chosen, certifier.certify(images, indices=chosen), strict=True)
