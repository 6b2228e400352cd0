"""The images of a run on the workers of a crew: begun in order, a bounded number at a time."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np

from deqcert.certificate import AnyCertificate
from deqcert.runners.base import Work, Working
from deqcert.runners.blocks import SpreadSampler
from deqcert.runners.clock import Clock
from deqcert.runners.crew import At, Crew, TimeLimitError
from deqcert.runners.tasks import CertifyBatch, CertifyImage, Picture
from deqcert.runners.workers import Workers
from deqcert.smoothing import Certifier

_POLL = 0.2
"""Seconds after which progress is passed on, where nothing is finished."""
_MOST = 4096
"""Images at a time, however many workers there are: each has a thread that waits for it."""


def in_flight(workers: int) -> int:
    """Return how many images are begun and not recorded at most.

    Each worker has one at hand, and another waiting, so that it need not wait for the caller. Only
    these images are in memory.
    """
    return min(2 * workers, _MOST)


def spread(
    work: Work, workers: Workers, crew: Crew, working: Working
) -> Generator[AnyCertificate, None, None]:
    """Yield certificates as they are finished by the workers of `crew`, which is closed after.

    An image that reaches the time limit comes as an abstention with its reason.
    """
    board = _Board(crew, working)
    images = _Images(work, workers, crew)
    try:
        for future in _as_done(images.begun(), lambda: in_flight(crew.seats), board.pass_on):
            yield from future.result()
        board.pass_on()
    finally:
        images.close()


def _as_done(
    futures: Iterator[Future[Sequence[AnyCertificate]]],
    bound: Callable[[], int],
    meanwhile: Callable[[], None],
) -> Iterator[Future[Sequence[AnyCertificate]]]:
    """Yield futures as they are done; a new one is taken only where fewer than `bound` are open."""
    waiting: set[Future[Sequence[AnyCertificate]]] = set()
    while True:
        waiting.update(itertools.islice(futures, max(0, bound() - len(waiting))))
        if not waiting:
            return
        done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
        meanwhile()
        # What has succeeded is recorded before an error ends the run.
        yield from sorted(done, key=lambda future: future.exception() is not None)


class _Images:
    """The images of a run, each a promise of its certificate once it is begun."""

    def __init__(self, work: Work, workers: Workers, crew: Crew) -> None:
        self.work = work
        self.workers = workers
        self.crew = crew
        self._waiters = ThreadPoolExecutor(_MOST, thread_name_prefix="deqcert-image")

    def close(self) -> None:
        """End all workers, and whoever waits for them."""
        self.crew.close()
        self._waiters.shutdown(cancel_futures=True)

    def begun(self) -> Iterator[Future[Sequence[AnyCertificate]]]:
        """Begin one image, or small batch, after the other."""
        if not isinstance(self.work.certifier, Certifier):
            yield from self._batches(self.work.certifier.subject.batch_size)
            return
        assert self.work.seed is not None, "labels under noise have a seed"
        for order, index in enumerate(self.work.indices):
            picture = Picture(index, self.work.seed, self.work.data[index].image.numpy())
            yield self._waiters.submit(self._certify, self.work.certifier, picture, order)

    def _batches(self, size: int) -> Iterator[Future[Sequence[AnyCertificate]]]:
        indices = iter(self.work.indices)
        for order in itertools.count():
            chosen = list(itertools.islice(indices, size))
            if not chosen:
                return
            pixels = self.work.data.images(np.array(chosen, dtype=np.int64)).numpy()
            task = CertifyBatch(chosen, pixels)
            yield self.crew.submit(task, order=order, clock=Clock(None))

    def _certify(
        self, certifier: Certifier, picture: Picture, order: int
    ) -> Sequence[AnyCertificate]:
        """Have one image certified, whole or by blocks, and wait for it."""
        clock = Clock(self.workers.time_limit)
        try:
            if self.workers.block is None:
                return self.crew.submit(CertifyImage(picture), order=order, clock=clock).result()
            sampler = SpreadSampler(
                certifier.classifier,
                certifier.noise(picture.seed, picture.index),
                picture,
                block=self.workers.block,
                submit=lambda task: self.crew.submit(task, order=order, clock=clock),
            )
            certificate = certifier.certificate(sampler)
            # Of the work, not of waiting: several images share the workers.
            return [dataclasses.replace(certificate, seconds=clock.spent())]
        except TimeLimitError:
            limit = clock.limit
            plan = {"reason": f"not done within the time limit of {limit:g} s", "time_limit": limit}
            seed, index = picture.seed, picture.index
            return [certifier.abstention(plan, seed=seed, index=index, seconds=clock.spent())]


class _Board:
    """Passes on what workers are at, and their warnings, in the thread of the caller."""

    def __init__(self, crew: Crew, working: Working) -> None:
        self.crew = crew
        self.working = working
        self._told: dict[str, At] = {}
        self._warned: set[str] = set()

    def pass_on(self) -> None:
        """Tell what has changed."""
        for warning in self.crew.warned():
            if str(warning) not in self._warned:
                self._warned.add(str(warning))
                warnings.warn(warning, stacklevel=3)
        now = self.crew.board()
        for name in self._told.keys() - now.keys():
            self.working(name, None, "gone", 0, 0)
        for name, at in now.items():
            if self._told.get(name) != at:
                self.working(name, at.index, at.stage, at.done, at.total)
        self._told = now
