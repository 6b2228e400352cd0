"""Labels of many noisy copies of one image: independent cold solves, or serialized warm ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deqcert.models import solve_rows
from deqcert.smoothing.classifier import NO_CLASS, Labels, ReferenceClassifier
from deqcert.smoothing.noise import NoiseSource
from deqcert.smoothing.spent import Spent
from deqcert.solvers import SolverSpec, State, Status

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` after each hardware batch."""

STARTS = ("previous", "clean", "mean")


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""
    del stage, done, total


@dataclass(frozen=True, kw_only=True)
class Serialization:
    """How serialized labels are made (PAPER 1).

    Attributes:
        serial: Warm solver of every batch but the first.
        warmup: Solver of the first batch, from the model's own start.
        start: ``previous``: each row goes on from its own last fixed point; ``clean``: every row
            starts from the fixed point of the image without noise; ``mean``: every row starts from
            the mean of the last batch.
        chains: Rows followed side by side. Part of the method, unlike the hardware batch size.
    """

    serial: SolverSpec
    warmup: SolverSpec
    start: str
    chains: int


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
        chains = _Chains(self, how, spent)
        for first in range(0, n, how.chains):
            for low in range(0, min(how.chains, n - first), self.batch_size):
                high = min(low + self.batch_size, how.chains, n - first)
                images = self.noisy(stage, range(first + low, first + high))
                labels[first + low : first + high] = chains.advance(images, low, high)
                self.progress(shown_as or stage, first + high, n)
            chains.end_batch()
        return labels


class _Chains:
    """The states of all chains of one image, and where the next solve of each starts."""

    def __init__(self, sampler: Sampler, how: Serialization, spent: Spent) -> None:
        self.classifier = sampler.classifier
        self.how = how
        self.spent = spent
        self.batch = 0
        self.states: tuple[Tensor, ...] | None = None  # one (chains, ...) tensor per resolution
        self.fixed: tuple[Tensor, ...] | None = None  # one-row start shared by all chains
        self.single = False
        if how.start == "clean":
            found = self._solve(sampler.image[None], how.warmup, None)
            self.fixed = _parts(found) if _all_finite(found) else None

    def advance(self, images: Tensor, low: int, high: int) -> np.ndarray:  # (high - low,) int16
        """Solve one draw of the chains low..high-1, keep their states, return their labels."""
        start = self._start(low, high)
        cold = start is None
        spec = self.how.warmup if cold or self.batch == 0 else self.how.serial
        classifier = self.classifier
        moved = images.to(device=classifier.device, dtype=classifier.dtype)
        labels, solution = classifier.labelled(moved, spec=spec, state0=start)
        self.spent.add(solution, spec)
        if self.how.start != "clean":
            self._keep(solution.state, solution.status, low, high)
        return labels.label.astype(np.int16)

    def end_batch(self) -> None:
        """Close one batch of chains."""
        self.batch += 1
        if self.how.start == "mean" and self.states is not None:
            # The mean is taken over the stored states of all chains at once, so that the hardware
            # batch size cannot enter it. Rows that failed hold zeros: a poor start, nothing worse.
            self.fixed = tuple(part.double().mean(0, keepdim=True).to(part) for part in self.states)

    def _solve(self, images: Tensor, spec: SolverSpec, start: State | None) -> State:
        classifier = self.classifier
        moved = images.to(device=classifier.device, dtype=classifier.dtype)
        _, solution = solve_rows(classifier.model, moved, spec, state0=start)
        self.spent.add(solution, spec)
        self.single = isinstance(solution.state, Tensor)
        return solution.state

    def _start(self, low: int, high: int) -> State | None:
        if self.fixed is not None:
            parts = tuple(p.expand(high - low, *p.shape[1:]).contiguous() for p in self.fixed)
        elif self.states is not None and self.batch > 0 and self.how.start == "previous":
            parts = tuple(part[low:high] for part in self.states)
        else:
            return None
        return parts[0] if self.single else parts

    def _keep(self, state: State, status: Tensor, low: int, high: int) -> None:
        self.single = isinstance(state, Tensor)
        parts = _parts(state)
        if self.states is None:
            rows = self.how.chains
            self.states = tuple(part.new_zeros(rows, *part.shape[1:]) for part in parts)
        failed = status == int(Status.NONFINITE)
        broken = bool(failed.any())
        for kept, part in zip(self.states, parts, strict=True):
            kept[low:high] = part
            if broken:  # a failed chain starts again from zero instead of staying broken for ever
                kept[low:high][failed] = 0.0


def _parts(state: State) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else state


def _all_finite(state: State) -> bool:
    return all(bool(torch.isfinite(part).all()) for part in _parts(state))


def count_labels(labels: np.ndarray, classes: int) -> np.ndarray:  # (classes,) int64
    """Count labels per class; `NO_CLASS` counts for none."""
    return np.bincount(labels[labels >= 0], minlength=classes).astype(np.int64)
