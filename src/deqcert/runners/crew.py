"""A crew: workers that do tasks, first things first; a lost one is replaced, its task done again.

Each worker has a thread here that hands it tasks and waits for their results, so that all waiting
is plain blocking, whatever a worker is: a process of this machine, or an actor somewhere else.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from deqcert.errors import NumericalWarning, WorkerError
from deqcert.runners.bench import Answer
from deqcert.runners.clock import Clock
from deqcert.runners.tasks import Task

ATTEMPTS = 3
"""Workers that a task may cost, and starts of a worker that may fail in a row: what costs more
is no accident, and the run ends."""

Report = Callable[[str, int, int], None]
"""Called as ``report(stage, done, total)`` of the task at hand."""


class WorkerLostError(Exception):
    """A worker is gone: killed, crashed, or its machine has left."""


class TimeLimitError(Exception):
    """The work on an image took longer than it may."""


class Worker(Protocol):
    """Does one task after the other."""

    name: str

    def run(self, task: Task, left: Callable[[], float], report: Report) -> Answer:
        """Do a task.

        Raises:
            WorkerLostError: The worker is gone.
            TimeLimitError: ``left()`` has fallen to 0; the worker is still at it.
        """
        ...

    def stop(self) -> None:
        """End the worker at once, whatever it does; a second call does nothing."""
        ...


Hire = Callable[[int, threading.Event], Worker]
"""Starts the worker of a seat and waits for it, or until the event: then `WorkerLostError`."""


@dataclass(frozen=True)
class At:
    """What a worker is at: an image, a stage, and draws of it."""

    index: int | None
    stage: str
    done: int
    total: int


@dataclass(order=True)
class _Job:
    order: int
    number: int
    task: Task = field(compare=False)
    clock: Clock = field(compare=False)
    future: Future[Any] = field(compare=False)
    lost: int = field(default=0, compare=False)


class Crew:
    """Workers and what they have to do; close it, or use it in a ``with``.

    Args:
        hire: Starts a worker.
        seats: Workers at the beginning.
    """

    def __init__(self, hire: Hire, seats: int) -> None:
        self._hire = hire
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._board: dict[str, At] = {}
        self._warned: list[Warning] = []
        self._open: set[Future[Any]] = set()
        self._workers: dict[int, Worker] = {}
        self._threads: list[threading.Thread] = []
        self._error: Exception | None = None
        self._settling = threading.Lock()
        for _ in range(seats):
            self.add_seat()

    @property
    def seats(self) -> int:
        """Workers there are, or are being started."""
        return len(self._threads)

    def add_seat(self) -> None:
        """Start one more worker."""
        seat = len(self._threads)
        thread = threading.Thread(
            target=self._serve, args=(seat,), name=f"deqcert-worker-{seat}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def submit(self, task: Task, *, order: int, clock: Clock) -> Future[Any]:
        """Promise the result of a task; tasks of a smaller `order` go first.

        The future raises what the task raises, `TimeLimitError`, or `WorkerError` where workers
        are lost again and again.
        """
        job = _Job(order, next(self._numbers), task, clock, Future())
        with self._lock:
            if self._error is not None:
                raise self._error
            self._open.add(job.future)
        job.future.add_done_callback(self._forget)
        self._jobs.put(job)
        return job.future

    def board(self) -> dict[str, At]:
        """Return what each worker is at, by its name."""
        with self._lock:
            return dict(self._board)

    def warned(self) -> list[Warning]:
        """Return the warnings since the last call: of workers, and about lost ones."""
        with self._lock:
            told, self._warned = self._warned, []
        return told

    def close(self) -> None:
        """End all workers at once; what was promised and is not done raises `WorkerError`."""
        self._closed.set()
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.stop()
        for _ in self._threads:
            self._wake()
        self._fail(WorkerError("the crew was closed"))
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _wake(self) -> None:
        """Put a job nobody waits for, so that an idle seat looks up."""
        nothing: Future[Any] = Future()
        nothing.cancel()
        self._jobs.put(_Job(-1, next(self._numbers), _NOTHING, Clock(None), nothing))

    def _serve(self, seat: int) -> None:
        """Keep a seat taken until the end."""
        try:
            while not self._closed.is_set():
                worker = self._hired(seat)
                with self._lock:
                    self._workers[seat] = worker
                try:
                    self._employ(worker)
                finally:
                    self._dismiss(seat, worker)
        except WorkerLostError:
            pass  # closed while a worker was being started
        except Exception as error:
            self._fail(error)

    def _hired(self, seat: int) -> Worker:
        """Start a worker, a few times if need be."""
        for attempt in itertools.count(1):
            try:
                return self._hire(seat, self._closed)
            except WorkerLostError as lost:
                if self._closed.is_set():
                    raise
                if attempt == ATTEMPTS:
                    raise WorkerError(
                        f"worker {seat + 1} died {ATTEMPTS} times while starting: {lost}"
                    ) from lost
        raise AssertionError("the count never ends")

    def _dismiss(self, seat: int, worker: Worker) -> None:
        worker.stop()
        with self._lock:
            self._workers.pop(seat, None)
            self._board.pop(worker.name, None)

    def _employ(self, worker: Worker) -> None:
        """Hand out jobs until the worker is lost, or the end."""
        while not self._closed.is_set():
            self._note(worker.name, At(None, "idle", 0, 0))
            job = self._jobs.get()
            if job.future.cancelled() or self._closed.is_set():
                continue
            if not self._do(worker, job):
                return

    def _do(self, worker: Worker, job: _Job) -> bool:
        """Do a job; return whether the worker is still there."""

        def report(stage: str, done: int, total: int) -> None:
            self._note(worker.name, At(job.task.index, stage, done, total))

        report("start", 0, 0)
        if job.clock.left() <= 0:
            self._settle(job.future, error=TimeLimitError())
            return True
        token, counts = job.clock.start(), True
        try:
            answer = worker.run(job.task, job.clock.left, report)
        except WorkerLostError as lost:
            counts = False
            self._again(job, lost)
            return False
        except TimeLimitError as error:
            self._settle(job.future, error=error)
            return False
        else:
            with self._lock:
                self._warned += map(NumericalWarning, answer.warned)
            self._settle(job.future, result=answer.result, error=answer.error)
        finally:
            job.clock.stop(token, counts=counts)
        return True

    def _again(self, job: _Job, lost: WorkerLostError) -> None:
        """Have a job done by another worker, unless it has cost too many."""
        job.lost += 1
        if job.lost < ATTEMPTS and not self._closed.is_set():
            said = f"a worker was lost at image {job.task.index}, {lost}; it is done again"
            with self._lock:
                self._warned.append(RuntimeWarning(said))
            self._jobs.put(job)
            return
        message = (
            f"{job.lost} workers were lost one after the other at image {job.task.index}, the last "
            f"{lost}; what is recorded is kept, run again to go on"
        )
        self._settle(job.future, error=WorkerError(message))

    def _settle(
        self, future: Future[Any], *, result: Any = None, error: BaseException | None = None
    ) -> None:
        """Keep or break a promise, unless that has happened already."""
        with self._settling:
            if future.done() or not future.set_running_or_notify_cancel():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _note(self, name: str, at: At) -> None:
        with self._lock:
            self._board[name] = at

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._open.discard(future)

    def _fail(self, error: Exception) -> None:
        """Break every promise: nobody is left to keep it."""
        with self._lock:
            self._error = error
            promised = list(self._open)
        for future in promised:
            self._settle(future, error=error)


class _Nothing:
    """A task that is never done."""

    index = -1

    def run(self, certifier: Any, progress: Any) -> None:
        del certifier, progress


_NOTHING = _Nothing()
