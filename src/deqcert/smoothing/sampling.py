"""Labels of many noisy copies of one image: independent cold solves, or serialized warm ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from torch import Tensor

from deqcert.smoothing.ahead import made_ahead
from deqcert.smoothing.chains import Chains, Serialization
from deqcert.smoothing.classifier import NO_CLASS, Asked, Labels, ReferenceClassifier
from deqcert.smoothing.hardware import HardwareBatch
from deqcert.smoothing.noise import NoiseSource
from deqcert.smoothing.proved import ProvedSolves
from deqcert.smoothing.settling import FIT_ROWS, Fit, PredictedSolves, Settling, fitted
from deqcert.smoothing.spent import Spent

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` after each hardware batch."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""
    del stage, done, total


class Rows(Protocol):
    """Noisy copies, there or to be made: rows are taken by slices."""

    def __getitem__(self, rows: slice, /) -> Tensor:  # (rows, C, H, W)
        """Return some of them."""
        ...


class SerialSolves(Protocol):
    """What makes serialized labels: asked for one draw of some chains after the other."""

    def advance(self, images: Tensor, low: int, high: int) -> np.ndarray:
        """Return int16 labels of one draw of the chains low..high-1, shape (high - low,)."""
        ...

    def end_batch(self) -> None:
        """Close one draw of all chains."""
        ...


class Draws(Protocol):
    """What methods ask of the draws of one image, wherever these are labelled."""

    classifier: ReferenceClassifier
    noise: NoiseSource

    def cold(
        self,
        stage: str,
        indices: np.ndarray | range,
        spent: Spent,
        *,
        shown_as: str | None = None,
    ) -> Labels:
        """Return cold reference labels, as `Sampler.cold`."""
        ...

    def cold_counts(self, stage: str, n: int, spent: Spent) -> np.ndarray:
        """Count cold reference labels, as `Sampler.cold_counts`."""
        ...

    def serialized(
        self,
        stage: str,
        n: int,
        how: Serialization,
        spent: Spent,
        *,
        shown_as: str | None = None,
        proved: bool = False,
    ) -> np.ndarray:
        """Return serialized labels, as `Sampler.serialized`."""
        ...

    def prepare(self, how: Serialization, spent: Spent) -> None:
        """Make what serialized labels need, as `Sampler.prepare`."""
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

    Attributes:
        fit: What `prepare` has made, which may also be given: the fit of the start ``linear``.
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
        self._pixels = noise.stream.placed(image)
        self.batch = HardwareBatch(batch_size) if isinstance(batch_size, int) else batch_size
        self.progress = progress
        self.fit: Fit | None = None

    def noisy(self, stage: str, indices: np.ndarray | range) -> Tensor:  # (count, C, H, W)
        """Return noisy copies; never clipped: the theorem is about x + e as it is."""
        return self.noise.noisy(self._pixels, stage, indices)

    def batches(
        self,
        stage: str,
        indices: np.ndarray | range,  # (count,) ascending
        places: Iterator[range] | None = None,
    ) -> AbstractContextManager[Iterator[tuple[range, Rows]]]:
        """Give an iterator over noisy copies, a hardware batch at a time.

        It yields positions in `indices` and the copies. On the host the next ones are made while
        the last are computed; elsewhere when they are taken, since that takes the host no time.

        Args:
            stage: Stage of the noise.
            indices: Indices of the draws.
            places: Which of them are a batch; default: as many as the hardware takes at once.
        """
        if places is None:
            places = _places(len(indices), self.batch.rows)
        if not self.noise.stream.on_host:
            return nullcontext((part, _Unmade(self, stage, indices, part)) for part in places)
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
        *,
        first: int = 0,
    ) -> np.ndarray:  # (classes,) int64
        """Count the clear cold reference labels of n draws, in memory that is flat in n."""
        counts = np.zeros(self.classifier.num_classes, dtype=np.int64)

        def count(place: range, some: Labels) -> None:
            del place
            counts[:] += count_labels(some.clear(self.classifier.margin), len(counts))

        self._cold(stage, range(first, first + n), spent, count, stage)
        return counts

    def _cold(
        self,
        stage: str,
        indices: np.ndarray | range,
        spent: Spent,
        take: Callable[[range, Labels], None],
        shown_as: str,
    ) -> None:
        asked: deque[tuple[range, Asked]] = deque()

        def solve(place: range, images: Rows, low: int, high: int) -> None:
            asked.append((place[low:high], self.classifier.ask(images[low:high])))

        def read(left: int) -> None:
            while len(asked) > left:
                rows, one = asked.popleft()
                some, solution = one.labels()
                spent.add(solution, self.classifier.spec)
                take(rows, some)
                self.progress(shown_as, rows.stop, len(indices))

        # While the host reads one solve, a GPU computes the next.
        behind = 0 if self.classifier.device.type == "cpu" else 1
        with self.batches(stage, indices) as batches:
            for place, images in batches:
                self.batch.each(len(place), partial(solve, place, images))
                read(left=behind)
        read(left=0)

    def serialized(
        self,
        stage: str,
        n: int,
        how: Serialization,
        spent: Spent,
        *,
        shown_as: str | None = None,
        proved: bool = False,
        chains: range | None = None,
    ) -> np.ndarray:  # (draws of these chains,) int16
        """Return serialized labels of draws 0..n-1; draw i belongs to chain ``i % how.chains``.

        Nothing is claimed about them unless they are proved: Theorem A holds for any labels at all.
        Two bytes a draw are kept, and the states of the chains.

        Args:
            stage: Stage of the noise.
            n: Draws of all chains.
            how: How labels are made.
            spent: Where costs are counted.
            shown_as: What progress is reported as; default the stage.
            proved: Take the labels that are proved (`proved.ProvedSolves`) instead.
            chains: The draws of these chains alone, in order; None means all. What is done once
                for an image, not for a draw, is counted with chain 0.
        """
        chains = range(how.chains) if chains is None else chains
        labels = np.full(chain_draws(n, how.chains, chains), NO_CLASS, dtype=np.int16)
        with self.classifier.computing():
            solves = self._solves(how, spent, chains, proved)
        made = 0

        def solve(place: range, images: Rows, low: int, high: int) -> None:
            chain = place.start % how.chains - chains.start
            found = solves.advance(images[low:high], chain + low, chain + high)
            labels[made + low : made + high] = found

        places = _chain_places(n, how.chains, chains, self.batch.rows)
        with self.classifier.computing(), self.batches(stage, range(n), places) as batches:
            for place, images in batches:
                self.batch.each(len(place), partial(solve, place, images))
                made += len(place)
                self.progress(shown_as or stage, made, len(labels))
                if place.stop == n or (place.stop - chains.stop) % how.chains == 0:
                    solves.end_batch()
        return labels

    def prepare(self, how: Serialization, spent: Spent) -> None:
        """Make what serialized labels need once per image: the fit of the start ``linear``."""
        if how.start == "linear" and self.fit is None:
            rows = self.noisy("start", range(FIT_ROWS))
            with self.classifier.computing():
                self.fit = fitted(self.classifier, rows, how, spent)

    def _solves(
        self, how: Serialization, spent: Spent, chains: range, proved: bool
    ) -> SerialSolves:
        if proved:
            return ProvedSolves(
                self.classifier,
                self.image,
                spec=how.serial,
                start=how.start,
                chains=len(chains),
                spent=spent,
            )
        self.prepare(how, spent)
        if self.fit is not None and how.start == "linear":
            return PredictedSolves(Settling(self.classifier, how.serial, self.fit), spent)
        return Chains(self.classifier, self.image, how, chains, spent)


@dataclass(frozen=True)
class _Unmade:
    """Noisy copies that are made when they are taken, so that memory they lack is missed there."""

    sampler: Sampler
    stage: str
    indices: np.ndarray | range
    part: range

    def __getitem__(self, rows: slice, /) -> Tensor:  # (rows, C, H, W)
        chosen = self.part[rows]
        return self.sampler.noisy(self.stage, self.indices[chosen.start : chosen.stop])


def _places(count: int, rows: int) -> Iterator[range]:
    """Cut 0..count-1 into batches of at most `rows`."""
    for low in range(0, count, rows):
        yield range(low, min(low + rows, count))


def _chain_places(n: int, every: int, chains: range, rows: int) -> Iterator[range]:
    """Cut the draws of some chains into batches of at most `rows`, none across a round of them."""
    for first in range(0, n, every):
        end = min(first + chains.stop, n)
        for low in range(first + chains.start, end, rows):
            yield range(low, min(low + rows, end))


def chain_draws(n: int, every: int, chains: range) -> int:
    """Return how many of the draws 0..n-1 belong to some of `every` chains."""
    rounds, rest = divmod(n, every)
    return rounds * len(chains) + len(range(chains.start, min(chains.stop, rest)))


def count_labels(labels: np.ndarray, classes: int) -> np.ndarray:  # (classes,) int64
    """Count labels per class; `NO_CLASS` counts for none."""
    return np.bincount(labels[labels >= 0], minlength=classes).astype(np.int64)
