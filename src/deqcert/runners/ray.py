"""The runner on a Ray cluster: each worker an actor, wherever the cluster has room.

The only importer of Ray. Actors are not restarted by Ray: a lost one is replaced by the crew, as a
lost process is, and its task done again. Where no number of workers is asked for, a node that joins
is given workers, too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any

from deqcert.certificate import AnyCertificate
from deqcert.errors import ConfigurationError, WorkerError
from deqcert.runners.base import AnyCertifier, Work, Working
from deqcert.runners.bench import Answer, Bench, packed, place_facts, require_alike
from deqcert.runners.crew import Crew, Report, TimeLimitError, WorkerLostError
from deqcert.runners.local import device_of
from deqcert.runners.spread import in_flight, spread
from deqcert.runners.tasks import Task, images_of
from deqcert.runners.workers import Workers, usable_cores

try:
    import ray
    from ray.exceptions import GetTimeoutError, RayError
except ImportError as error:
    raise ConfigurationError("the runner ray needs Ray: pip install 'deqcert[ray]'") from error

_POLL = 0.5
_GROWTH_EVERY = 5.0
"""Seconds between two looks at whether the cluster has grown."""


class RayRunner:
    """Certifies on a Ray cluster.

    Args:
        workers: Settings. Without an address a cluster of this machine is started for the run; one
            that this process is connected to already is used as it is.

    Raises:
        ConfigurationError: Ray is not installed.
    """

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.threads = workers.threads or 1

    def facts(self, certifier: AnyCertifier) -> dict[str, Any]:
        """Return what a run's environment says of this runner."""
        self.workers.gpus_on(device_of(certifier))
        count = self.workers.count
        most = None if count is None else in_flight(count) * images_of(certifier)
        return {"runner": "ray", "workers": count, "threads": self.threads, "in_flight": most}

    def certify(self, work: Work, working: Working) -> Generator[AnyCertificate, None, None]:
        """Yield certificates as they are finished."""
        gpus = self.workers.gpus_on(device_of(work.certifier))
        with _cluster(self.workers, self.threads):
            if room(self.threads, gpus) == 0:
                warnings.warn(
                    f"the cluster has no room yet for a worker of {self.threads} CPUs and {gpus:g} "
                    "GPUs: waiting for a node that has",
                    RuntimeWarning,
                    stacklevel=2,
                )
            crew = self._crew(work.certifier, gpus)
            with contextlib.ExitStack() as stack:
                stack.callback(crew.close)
                if self.workers.count is None:
                    stack.enter_context(_growing(crew, lambda: room(self.threads, gpus)))
                yield from spread(work, self.workers, crew, working)

    def _crew(self, certifier: AnyCertifier, gpus: float) -> Crew:
        order = ray.put((packed(certifier), self.threads))
        facts = place_facts(certifier)
        remote = ray.remote(Actor).options(
            num_cpus=self.threads, num_gpus=gpus, max_concurrency=2, max_restarts=0
        )

        def hire(seat: int, closed: threading.Event) -> RayWorker:
            worker = RayWorker(str(seat + 1), remote.remote(order, sys.path))
            try:
                worker.await_ready(facts, closed)
            except BaseException:
                worker.stop()
                raise
            return worker

        count = self.workers.count
        return Crew(hire, max(1, room(self.threads, gpus)) if count is None else count)


class Actor:
    """A worker in a process that Ray has started; asked for progress while it works."""

    def __init__(self, order: tuple[bytes, int], path: list[str]) -> None:
        # Where the caller's own modules lie, if this machine has them, too.
        sys.path += [entry for entry in path if entry not in sys.path and os.path.isdir(entry)]
        logging.captureWarnings(False)
        certifier, threads = order
        self._bench = Bench(certifier, threads)
        self._at: tuple[str, int, int] | None = None

    def facts(self) -> tuple[str, dict[str, str]]:
        """Return the machine's name and what decides its last bits."""
        return socket.gethostname(), self._bench.facts

    def work(self, task: bytes) -> Answer:
        """Do a task."""
        self._at = None

        def report(stage: str, done: int, total: int) -> None:
            self._at = (stage, done, total)

        return self._bench.answer(pickle.loads(task), report)

    def at(self) -> tuple[str, int, int] | None:
        """Return what the task is at."""
        return self._at


class RayWorker:
    """A worker elsewhere in the cluster.

    Args:
        name: Its name, to which that of its machine is added.
        actor: Handle of the actor.
    """

    def __init__(self, name: str, actor: Any) -> None:
        self.name = name
        self._actor = actor

    def await_ready(self, facts: dict[str, str], closed: threading.Event) -> None:
        """Wait until the cluster has room for it, and it has loaded the certifier.

        Raises:
            WorkerLostError: It died, or the crew was closed.
            WorkerError: It is of another kind than `facts`.
        """
        with _lost():
            asked = self._actor.facts.remote()
            while not _ready(asked, _POLL):
                if closed.is_set():
                    raise WorkerLostError("closed")
            host, found = ray.get(asked)
        self.name = f"{self.name} ({host})"
        require_alike(self.name, facts, found)

    def run(self, task: Task, left: Callable[[], float], report: Report) -> Answer:
        """Do a task, as `Worker.run`."""
        with _lost():
            answer = self._actor.work.remote(pickle.dumps(task))
            while (seconds := left()) > 0:
                if _ready(answer, min(_POLL, seconds)):
                    return ray.get(answer)
                self._pass_on(report)
        raise TimeLimitError

    def _pass_on(self, report: Report) -> None:
        try:
            at = ray.get(self._actor.at.remote(), timeout=_POLL)
        except GetTimeoutError:
            return  # too busy to say
        if at is not None:
            report(*at)

    def stop(self) -> None:
        """Kill the actor; a second call does nothing."""
        with contextlib.suppress(Exception):  # gone already, or its cluster is
            ray.kill(self._actor)


def _ready(promised: Any, seconds: float) -> bool:
    return bool(ray.wait([promised], timeout=seconds)[0])


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    """Say of any error of Ray that the worker is lost: a task's own errors come as answers."""
    try:
        yield
    except GetTimeoutError:
        raise
    except RayError as error:
        why = " ".join(str(error).split("\n")[0].split())
        raise WorkerLostError(f"{type(error).__name__}: {why}") from error


@contextlib.contextmanager
def _cluster(workers: Workers, threads: int) -> Iterator[None]:
    """Be connected to a cluster for a while; one that is started here is stopped here."""
    if ray.is_initialized():
        yield
        return
    count = workers.count or max(1, usable_cores() // threads)
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if workers.address is None:
        options |= {"num_cpus": count * threads, "include_dashboard": False, "address": "local"}
    else:
        options["address"] = workers.address
        _require_reachable(workers.address)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(workers.address or "this machine", error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_reachable(address: str) -> None:
    """Refuse an address at which nobody listens: Ray would try for minutes, then end the process.

    Raises:
        WorkerError: Nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # a name such as auto
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> WorkerError:
    return WorkerError(f"no Ray cluster at {address}: {' '.join(str(error).split())}")


def room(threads: int, gpus: float) -> int:
    """Return how many workers fit into the cluster as it is now."""
    has = ray.cluster_resources()
    fits = [int(has.get("CPU", 0) // threads)]
    if gpus > 0:
        fits.append(int(has.get("GPU", 0) / gpus + 1e-9))
    return min(fits)


@contextlib.contextmanager
def _growing(crew: Crew, wanted: Callable[[], int]) -> Iterator[None]:
    """Give the crew more seats while the cluster has room for more."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_GROWTH_EVERY):
            with contextlib.suppress(RayError):
                while crew.seats < wanted():
                    crew.add_seat()

    thread = threading.Thread(target=look, name="deqcert-growth", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
