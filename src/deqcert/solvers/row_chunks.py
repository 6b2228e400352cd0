"""Work on the rows of a batch, a cacheful at a time, on as many threads as PyTorch uses.

Each thread takes whole chunks and computes all of a chunk by itself: a row's sums then never depend
on how many threads share them, no thread waits for another between two layers, and what one layer
writes is still in the cache when the next one reads it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import torch

Part = TypeVar("Part")
Made = TypeVar("Made")

GRAIN = 16
"""Chunks are multiples of this many rows where the batch is: kernels round tiny batches apart."""

_here = threading.local()


class StoppedError(Exception):
    """A thread ends because another one failed, or because the caller was interrupted."""


def chunks(rows: int, most: int, threads: int) -> list[tuple[int, int]]:
    """Return (first, past the last) of each chunk: at most `most` rows, equally many per thread.

    >>> chunks(100, most=64, threads=1), chunks(400, most=96, threads=2)[:3]
    ([(0, 64), (64, 100)], [(0, 80), (80, 144), (144, 208)])
    """
    if rows == 0:
        return []
    grains = -(-rows // GRAIN)
    rounds = -(-grains // (threads * max(1, most // GRAIN)))
    count = min(grains, rounds * threads)
    size, larger = divmod(grains, count)
    ends = [GRAIN * (size * k + min(k, larger)) for k in range(count + 1)]
    return [(low, min(rows, high)) for low, high in pairwise(ends)]


def for_chunks(work: Callable[[int, int], None], rows: int, most: int) -> None:
    """Call ``work(low, high)`` for every chunk of `rows` rows, each inside one thread.

    Args:
        work: Computes rows low to high - 1 and writes them where they belong.
        rows: Rows of the batch.
        most: Rows of a chunk at most, a multiple of `GRAIN`.
    """
    stop = getattr(_here, "stop", None)
    if stop is not None and stop.is_set():
        raise StoppedError
    parts = chunks(rows, most, torch.get_num_threads())
    in_threads(lambda part: work(*part), parts)


def in_threads(work: Callable[[Part], Made], parts: Sequence[Part]) -> list[Made]:
    """Return ``work(part)`` of every part, each inside one thread, without gradients.

    There are as many threads as PyTorch uses. What is raised in one of them, or here by Ctrl-C,
    ends the others at their next chunk of rows.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(part) for part in parts]
    inference, stop = torch.is_inference_mode_enabled(), threading.Event()

    def one(part: Part) -> Made:
        _here.stop = stop
        with torch.inference_mode(inference), torch.no_grad():  # both are a thread's own
            return work(part)

    pool = _pool(threads, os.getpid())
    coming = [pool.submit(one, part) for part in parts]
    try:
        wait(coming, return_when=FIRST_EXCEPTION)
    finally:
        stop.set()
        for future in coming:
            future.cancel()
        wait(coming)  # nothing computes on when the caller goes on
    error = _first_error(coming)
    try:
        if error is not None:
            raise error
        return [future.result() for future in coming]
    finally:
        # An error knows this frame. If the frame knew the error, both would keep what the threads
        # held until the next garbage collection, and no retry would find their memory free.
        coming.clear()
        del error


def _first_error(done: Sequence[Future[Made]]) -> BaseException | None:
    """Return what a thread has failed with; those that were stopped have not failed themselves."""
    errors = (None if future.cancelled() else future.exception() for future in done)
    return next((e for e in errors if e is not None and not isinstance(e, StoppedError)), None)


@lru_cache(maxsize=4)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return threads of this process in each of which PyTorch computes alone."""
    del process  # a forked process has none of its parent's threads
    pool = ThreadPoolExecutor(threads, thread_name_prefix="deqcert-rows")
    barrier = threading.Barrier(threads)

    def alone() -> None:
        # The first look makes this thread take over the common number; then it sets its own.
        torch.get_num_threads()
        barrier.wait()
        torch.set_num_threads(1)

    for started in [pool.submit(alone) for _ in range(threads)]:
        started.result()
    # Setting a thread's own number sets the one for threads to come, too.
    torch.set_num_threads(threads)
    return pool
