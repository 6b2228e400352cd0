"""Making the next thing while the last one is used: one background thread, one step ahead."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Part = TypeVar("Part")
Made = TypeVar("Made")


@contextmanager
def made_ahead(
    make: Callable[[Part], Made], parts: Iterable[Part]
) -> Iterator[Iterator[tuple[Part, Made]]]:
    """Give an iterator over (part, make(part)) in order, each made while the one before is used.

    At most one thing is made and waiting beside the one in use. An error of `make` is raised where
    its result would have come. The thread is gone when the context is left, however it is left; it
    then finishes at most the thing it is making.

    Args:
        make: Called in the background thread; should spend its time where Python's lock is
            released, as NumPy's generators do.
        parts: Taken one ahead. A single part is made in the calling thread.

    Example:
        >>> with made_ahead(abs, [-1, 2, -3]) as pairs:
        ...     list(pairs)
        [(-1, 1), (2, 2), (-3, 3)]
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="deqcert-ahead")
    try:
        yield _pairs(pool, make, iter(parts))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pairs(
    pool: ThreadPoolExecutor, make: Callable[[Part], Made], parts: Iterator[Part]
) -> Iterator[tuple[Part, Made]]:
    first = list(itertools.islice(parts, 2))
    if len(first) < 2:
        yield from ((part, make(part)) for part in first)
        return
    part, coming = first[0], _submit(pool, make, first[0])
    for later in itertools.chain(first[1:], parts):
        made = coming.result()
        coming = _submit(pool, make, later)
        yield part, made
        del made  # the caller's copy is the only one while the next is made
        part = later
    yield part, coming.result()


def _submit(pool: ThreadPoolExecutor, make: Callable[[Part], Made], part: Part) -> Future[Made]:
    try:
        return pool.submit(make, part)
    except RuntimeError:  # no memory for another thread: make it here
        done: Future[Made] = Future()
        done.set_result(make(part))
        return done
