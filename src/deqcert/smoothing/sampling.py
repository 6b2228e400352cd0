"""Labels of many noisy copies of one image: independent cold solves, or serialized warm ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from deqcert.smoothing.ahead import made_ahead
from deqcert.smoothing.chains import Chains, Serialization
from deqcert.smoothing.classifier import NO_CLASS, Labels, ReferenceClassifier
from deqcert.smoothing.hardware import HardwareBatch
from deqcert.smoothing.noise import NoiseSource
from deqcert.smoothing.settling import FIT_ROWS, PredictedSolves, Settling
from deqcert.smoothing.spent import Spent

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` after each hardware batch."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""
    del stage, done, total


class SerialSolves(Protocol):
    """What makes serialized labels: asked for one draw of some chains after the other."""

    def advance(self, images: Tensor, low: int, high: int) -> np.ndarray:
        """Return int16 labels of one draw of the chains low..high-1, shape (high - low,)."""
        ...

    def end_batch(self) -> None:
        """Close one draw of all chains."""
        ...


class Sampler:
    """Draws noisy copies of one image and labels them.

    Args:
        classifier: The reference classifier.
        image: The clean image, float32 CPU tensor in [0, 1].
        noise: The noise of this image.
        batch_size: Rows computed at once; a matter of hardware. A `HardwareBatch` is shared, so
            that what one image learns about the memory holds for the next.
        progress: Called after each hardware batch.
    """

    def __init__(
        self,
        classifier: ReferenceClassifier,
        image: Tensor,  # (C, H, W)
        noise: NoiseSource,
        *,
        batch_size: int | HardwareBatch,
        progress: Progress = no_progress,
    ) -> None:
        self.classifier = classifier
        self.image = image
        self.noise = noise
        self.batch = HardwareBatch(batch_size) if isinstance(batch_size, int) else batch_size
        self.progress = progress
        self._settling: Settling | None = None

    def noisy(self, stage: str, indices: np.ndarray | range) -> Tensor:  # (count, C, H, W)
        """Return noisy copies; never clipped: the theorem is about x + e as it is."""
        noisy = self.noise.draws(stage, indices)
        # NumPy's addition, since PyTorch's would start a team of threads of its own for the thread
        # that makes noise ahead.
        noisy += self.image.numpy()
        return torch.from_numpy(noisy)

    def batches(
        self,
        stage: str,
        indices: np.ndarray | range,  # (count,) ascending
        *,
        chains: int | None = None,
    ) -> AbstractContextManager[Iterator[tuple[range, Tensor]]]:
        """Give an iterator over noisy copies, the next ones made while the last are computed.

        It yields positions in `indices` and the copies, a hardware batch at a time; no batch
        crosses a multiple of `chains`.
        """
        count = len(indices)
        places = _places(count, chains or max(count, 1), self.batch.rows)
        return made_ahead(lambda part: self.noisy(stage, indices[part.start : part.stop]), places)

    def cold(
        self,
        stage: str,
        indices: np.ndarray | range,  # (count,) ascending
        spent: Spent,
        *,
        shown_as: str | None = None,
    ) -> Labels:
        """Return the cold reference labels of these draws: i.i.d. given f (THEORY 2)."""
        found = Labels(np.empty(len(indices), np.int32), np.empty(len(indices), np.float32))

        def keep(place: range, some: Labels) -> None:
            found.label[place.start : place.stop] = some.label
            found.lead[place.start : place.stop] = some.lead

        self._cold(stage, indices, spent, keep, shown_as or stage)
        return found

    def cold_counts(
        self,
        stage: str,
        n: int,
        spent: Spent,
    ) -> np.ndarray:  # (classes,) int64
        """Count the clear cold reference labels of draws 0..n-1, in memory that is flat in n."""
        counts = np.zeros(self.classifier.num_classes, dtype=np.int64)

        def count(place: range, some: Labels) -> None:
            del place
            counts[:] += count_labels(some.clear(self.classifier.margin), len(counts))

        self._cold(stage, range(n), spent, count, stage)
        return counts

    def _cold(
        self,
        stage: str,
        indices: np.ndarray | range,
        spent: Spent,
        take: Callable[[range, Labels], None],
        shown_as: str,
    ) -> None:
        def solve(place: range, images: Tensor, low: int, high: int) -> None:
            some, solution = self.classifier.labelled(images[low:high])
            spent.add(solution, self.classifier.spec)
            take(place[low:high], some)

        with self.batches(stage, indices) as batches:
            for place, images in batches:
                self.batch.each(len(place), partial(solve, place, images))
                self.progress(shown_as, place.stop, len(indices))

    def serialized(
        self,
        stage: str,
        n: int,
        how: Serialization,
        spent: Spent,
        *,
        shown_as: str | None = None,
        solves: SerialSolves | None = None,
    ) -> np.ndarray:  # (n,) int16
        """Return serialized labels of draws 0..n-1; draw i belongs to chain ``i % chains``.

        Nothing is claimed about them: Theorem A holds for any labels at all. Two bytes a draw are
        kept, and the states of the chains. `solves` makes them; None takes what `how` describes.
        """
        labels = np.full(n, NO_CLASS, dtype=np.int16)
        chains = self._serial_solves(how, spent) if solves is None else solves

        def solve(place: range, images: Tensor, low: int, high: int) -> None:
            chain = place.start % how.chains
            found = chains.advance(images[low:high], chain + low, chain + high)
            labels[place.start + low : place.start + high] = found

        with self.batches(stage, range(n), chains=how.chains) as batches:
            for place, images in batches:
                self.batch.each(len(place), partial(solve, place, images))
                self.progress(shown_as or stage, place.stop, n)
                if place.stop % how.chains == 0 or place.stop == n:
                    chains.end_batch()
        return labels

    def prepare(self, how: Serialization, spent: Spent) -> None:
        """Make what serialized labels need once per image: the fit of the start ``linear``."""
        if how.start == "linear" and self._settling is None:
            rows = self.noisy("start", range(FIT_ROWS))
            self._settling = Settling(self.classifier, rows, how, spent)

    def _serial_solves(self, how: Serialization, spent: Spent) -> SerialSolves:
        self.prepare(how, spent)
        if how.start == "linear" and self._settling is not None:
            return PredictedSolves(self._settling, spent)
        return Chains(self.classifier, self.image, how, spent)


def _places(count: int, chains: int, rows: int) -> Iterator[range]:
    """Cut 0..count-1 into batches of at most `rows`, none across a multiple of `chains`."""
    for first in range(0, count, chains):
        end = min(first + chains, count)
        for low in range(first, end, rows):
            yield range(low, min(low + rows, end))


def count_labels(labels: np.ndarray, classes: int) -> np.ndarray:  # (classes,) int64
    """Count labels per class; `NO_CLASS` counts for none."""
    return np.bincount(labels[labels >= 0], minlength=classes).astype(np.int64)
