"""Labels of many noisy copies of one image: independent cold solves, or serialized warm ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from deqcert.smoothing.chains import Chains, Serialization
from deqcert.smoothing.classifier import NO_CLASS, Labels, ReferenceClassifier
from deqcert.smoothing.noise import NoiseSource
from deqcert.smoothing.spent import Spent

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` after each hardware batch."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""
    del stage, done, total


class Sampler:
    """Draws noisy copies of one image and labels them.

    Args:
        classifier: The reference classifier.
        image: The clean image, float32 CPU tensor in [0, 1].
        noise: The noise of this image.
        batch_size: Rows computed at once; a matter of hardware.
        progress: Called after each hardware batch.
    """

    def __init__(
        self,
        classifier: ReferenceClassifier,
        image: Tensor,  # (C, H, W)
        noise: NoiseSource,
        *,
        batch_size: int,
        progress: Progress = no_progress,
    ) -> None:
        self.classifier = classifier
        self.image = image
        self.noise = noise
        self.batch_size = batch_size
        self.progress = progress

    def noisy(self, stage: str, indices: np.ndarray | range) -> Tensor:  # (count, C, H, W)
        """Return noisy copies; never clipped: the theorem is about x + e as it is."""
        return self.image + torch.from_numpy(self.noise.draws(stage, indices))

    def cold(
        self,
        stage: str,
        indices: np.ndarray | range,  # (count,) ascending
        spent: Spent,
        *,
        shown_as: str | None = None,
    ) -> Labels:
        """Return the cold reference labels of these draws: i.i.d. given f (THEORY 2)."""
        labels, leads = [], []
        for first in range(0, len(indices), self.batch_size):
            part = indices[first : first + self.batch_size]
            found, solution = self.classifier.labelled(self.noisy(stage, part))
            spent.add(solution, self.classifier.spec)
            labels.append(found.label)
            leads.append(found.lead)
            self.progress(shown_as or stage, first + len(part), len(indices))
        if not labels:
            return Labels(np.empty(0, np.int32), np.empty(0, np.float32))
        return Labels(np.concatenate(labels), np.concatenate(leads))

    def cold_counts(
        self,
        stage: str,
        n: int,
        spent: Spent,
    ) -> np.ndarray:  # (classes,) int64
        """Count the clear cold reference labels of draws 0..n-1, in memory that is flat in n."""
        counts = np.zeros(self.classifier.num_classes, dtype=np.int64)
        for first in range(0, n, self.batch_size):
            part = range(first, min(first + self.batch_size, n))
            found, solution = self.classifier.labelled(self.noisy(stage, part))
            spent.add(solution, self.classifier.spec)
            counts += count_labels(found.clear(self.classifier.margin), len(counts))
            self.progress(stage, part.stop, n)
        return counts

    def serialized(
        self,
        stage: str,
        n: int,
        how: Serialization,
        spent: Spent,
        *,
        shown_as: str | None = None,
    ) -> np.ndarray:  # (n,) int16
        """Return serialized labels of draws 0..n-1; draw i belongs to chain ``i % chains``.

        Nothing is claimed about them: Theorem A holds for any labels at all. Two bytes a draw are
        kept, and the states of the chains.
        """
        labels = np.full(n, NO_CLASS, dtype=np.int16)
        chains = Chains(self.classifier, self.image, how, spent)
        for first in range(0, n, how.chains):
            for low in range(0, min(how.chains, n - first), self.batch_size):
                high = min(low + self.batch_size, how.chains, n - first)
                images = self.noisy(stage, range(first + low, first + high))
                labels[first + low : first + high] = chains.advance(images, low, high)
                self.progress(shown_as or stage, first + high, n)
            chains.end_batch()
        return labels


def count_labels(labels: np.ndarray, classes: int) -> np.ndarray:  # (classes,) int64
    """Count labels per class; `NO_CLASS` counts for none."""
    return np.bincount(labels[labels >= 0], minlength=classes).astype(np.int64)
