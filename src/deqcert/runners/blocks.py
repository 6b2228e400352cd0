"""One image on several workers: its draws cut into fixed blocks, and put together again.

A block is a fixed set of draws (cold labels) or of whole chains (serialized labels); it follows
from n, chains and the size of a block, never from the number of workers. A cold label depends on
its draw alone, a serialized one on its chain alone, and costs are sums: the record is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from deqcert.runners.tasks import ColdCount, ColdDraws, FitStart, Picture, SerialDraws, Task
from deqcert.smoothing import Labels, NoiseSource, ReferenceClassifier, Serialization
from deqcert.smoothing.noise import BLOCK
from deqcert.smoothing.spent import Spent

Submit = Callable[[Task], Future[Any]]


class SpreadSampler:
    """The draws of one image, labelled elsewhere: a `Draws` that hands out blocks.

    Args:
        classifier: The reference classifier, for its margin and its number of classes.
        noise: The noise of the image.
        picture: The image, as blocks carry it.
        block: Draws of a block, about.
        submit: Takes a piece of work and promises its result.
    """

    def __init__(
        self,
        classifier: ReferenceClassifier,
        noise: NoiseSource,
        picture: Picture,
        *,
        block: int,
        submit: Submit,
    ) -> None:
        self.classifier = classifier
        self.noise = noise
        self.picture = picture
        self._block = block
        self._submit = submit
        self._fit: bytes | None = None

    def cold(
        self,
        stage: str,
        indices: np.ndarray | range,  # (count,) ascending
        spent: Spent,
        *,
        shown_as: str | None = None,
    ) -> Labels:
        """Return cold reference labels, as `Sampler.cold`."""
        parts = [indices[place.start : place.stop] for place in _cut(len(indices), self._block)]
        tasks = [ColdDraws(self.picture, stage, part, shown_as or stage) for part in parts]
        found = list(self._done(tasks, spent))
        if not found:
            return Labels(np.empty(0, np.int32), np.empty(0, np.float32))
        return Labels(
            np.concatenate([labels.label for labels in found]),
            np.concatenate([labels.lead for labels in found]),
        )

    def cold_counts(self, stage: str, n: int, spent: Spent) -> np.ndarray:  # (classes,) int64
        """Count cold reference labels, as `Sampler.cold_counts`."""
        tasks = [ColdCount(self.picture, stage, draws) for draws in _cut(n, self._block)]
        return sum(self._done(tasks, spent), np.zeros(self.classifier.num_classes, np.int64))

    def serialized(
        self,
        stage: str,
        n: int,
        how: Serialization,
        spent: Spent,
        *,
        shown_as: str | None = None,
        proved: bool = False,
    ) -> np.ndarray:  # (n,) int16
        """Return serialized labels, as `Sampler.serialized`; a chain never crosses blocks."""
        if not proved:
            self.prepare(how, spent)
        parts = _cut(min(how.chains, n), chains_per_block(n, how.chains, self._block))
        tasks = [
            SerialDraws(self.picture, stage, n, how, part, proved, self._fit, shown_as or stage)
            for part in parts
        ]
        labels = np.empty(n, dtype=np.int16)
        chain = np.arange(n) % how.chains
        for task, found in zip(tasks, self._done(tasks, spent), strict=True):
            labels[(chain >= task.chains.start) & (chain < task.chains.stop)] = found
        return labels

    def prepare(self, how: Serialization, spent: Spent) -> None:
        """Make what serialized labels need, as `Sampler.prepare`: once, for all blocks."""
        if how.start == "linear" and self._fit is None:
            (self._fit,) = self._done([FitStart(self.picture, how)], spent)

    def _done(self, tasks: Sequence[Task], spent: Spent) -> Iterator[Any]:
        """Have all tasks done; yield their results in order, their costs counted."""
        promised = [self._submit(task) for task in tasks]
        try:
            for future in promised:
                result, cost = future.result()
                spent.merge(cost)
                yield result
        finally:
            for future in promised:
                future.cancel()  # where one has failed, the others are of no use


def chains_per_block(n: int, chains: int, block: int) -> int:
    """Return how many chains make a block of about `block` of n draws: a multiple of 16.

    >>> chains_per_block(100_000, 400, 25_000)
    112
    """
    wanted = -(-block * chains // n)
    return -(-wanted // BLOCK) * BLOCK


def _cut(count: int, size: int) -> Iterator[range]:
    for low in range(0, count, size):
        yield range(low, min(low + size, count))
