"""The runner that is always there: in this process, or in several of this machine."""

from __future__ import annotations

import itertools
import os
import pickle
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from deqcert.certificate import AnyCertificate
from deqcert.errors import ConfigurationError
from deqcert.runners.base import AnyCertifier, Work, Working
from deqcert.runners.bench import packed, place_facts
from deqcert.runners.crew import Crew
from deqcert.runners.process import ProcessWorker
from deqcert.runners.spread import in_flight, spread
from deqcert.runners.tasks import images_of
from deqcert.runners.workers import Workers
from deqcert.smoothing import Certifier

HERE = "1"
"""Name of the only worker where there are no others."""


class LocalRunner:
    """Certifies in this process, in the order asked for; or in several, each with its own model.

    One worker works in this very process, unless there is a time limit: what hangs can only be
    ended with its process.

    Args:
        workers: Settings.

    Raises:
        ConfigurationError: An address was given, which only Ray has.
    """

    def __init__(self, workers: Workers) -> None:
        if workers.address is not None:
            raise ConfigurationError("an address is for the runner ray, not for local")
        self.workers = workers
        self.count = workers.count or 1
        self.alone = self.count == 1 and workers.time_limit is None

    def facts(self, certifier: AnyCertifier) -> dict[str, Any]:
        """Return what a run's environment says of this runner."""
        if self.alone:
            if self.workers.gpus is not None:
                self._gpus(certifier)
            threads = self.workers.threads or torch.get_num_threads()
            return {"runner": "local", "workers": 1, "threads": threads, "in_flight": 1}
        self._gpus(certifier)
        return {
            "runner": "local",
            "workers": self.count,
            "threads": self.workers.threads_of(self.count),
            "in_flight": in_flight(self.count) * images_of(certifier),
        }

    def certify(self, work: Work, working: Working) -> Generator[AnyCertificate, None, None]:
        """Yield certificates as they are finished."""
        if self.alone:
            with _threads(self.workers.threads):
                yield from _one_by_one(work, working)
            return
        yield from spread(work, self.workers, self._crew(work.certifier), working)

    def _crew(self, certifier: AnyCertifier) -> Crew:
        gpus = self._gpus(certifier)
        threads = self.workers.threads_of(self.count)
        order = pickle.dumps((packed(certifier), threads))
        facts = place_facts(certifier)

        def hire(seat: int, closed: threading.Event) -> ProcessWorker:
            environment = {"OMP_NUM_THREADS": str(threads)}
            if gpus:
                environment["CUDA_VISIBLE_DEVICES"] = gpus[seat]
            worker = ProcessWorker(str(seat + 1), order, environment)
            try:
                worker.await_ready(facts, closed)
            except BaseException:
                worker.stop()
                raise
            return worker

        return Crew(hire, self.count)

    def _gpus(self, certifier: AnyCertifier) -> list[str]:
        """Return the GPU of each worker; nothing for certifiers on the CPU."""
        each = self.workers.gpus_on(device_of(certifier))
        return _gpus_here(each, self.count) if each > 0 else []


def device_of(certifier: AnyCertifier) -> str:
    """Return the device a certifier computes on."""
    return str(certifier.classifier.device) if isinstance(certifier, Certifier) else "cpu"


def _gpus_here(gpus: float, count: int) -> list[str]:
    """Return the GPU of each worker, as CUDA calls it: each GPU for 1 / `gpus` of them.

    Raises:
        ConfigurationError: There are not so many.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(k) for k in range(torch.cuda.device_count())]
    shared = [name.strip() for name in names for _ in range(int(1 / gpus + 1e-9))]
    if len(shared) < count:
        raise ConfigurationError(
            f"{count} workers of {gpus:g} GPUs each do not fit on {len(names)} GPUs"
        )
    return shared[:count]


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let PyTorch use so many threads for a while."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _one_by_one(work: Work, working: Working) -> Generator[AnyCertificate, None, None]:
    """Certify in this process: one image, or one small batch of images without noise."""
    if not isinstance(work.certifier, Certifier):
        indices = iter(work.indices)
        while chosen := list(itertools.islice(indices, work.certifier.subject.batch_size)):
            working(HERE, chosen[0], "certify", 0, len(chosen))
            images, _ = work.data.batch(chosen)
            yield from work.certifier.certify(images, indices=chosen)
        return
    for index in work.indices:

        def progress(stage: str, done: int, total: int, index: int = index) -> None:
            working(HERE, index, stage, done, total)

        image = work.data[index].image
        yield work.certifier.certify(image, seed=work.seed, index=index, progress=progress)
