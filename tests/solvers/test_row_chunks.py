"""Rows in chunks, chunks on threads."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref

import pytest
import torch

from deqcert.solvers.row_chunks import GRAIN, StoppedError, chunks, for_chunks, in_threads


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("most", [16, 48, 64])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 96, 100, 400])
def test_chunks_cover_all_rows_once(rows, most, threads):
    parts = chunks(rows, most, threads)
    assert [low for low, _ in parts] == [0, *(high for _, high in parts[:-1])]
    assert parts[-1][1] == rows
    assert all(0 < high - low <= most for low, high in parts)
    assert all((high - low) % GRAIN == 0 for low, high in parts[:-1])
    if rows >= GRAIN * threads * 2:
        assert len(parts) >= threads


def test_no_rows_are_no_chunks():
    assert chunks(0, 64, 2) == []


@pytest.mark.parametrize(("rows", "most", "threads"), [(400, 96, 2), (512, 96, 3), (192, 64, 2)])
def test_threads_have_equal_work(rows, most, threads):
    parts = chunks(rows, most, threads)
    assert len(parts) % threads == 0
    assert max(high - low for low, high in parts) - min(high - low for low, high in parts) <= GRAIN


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_row_is_done_by_a_thread_that_computes_alone(threads, count):
    threads(count)
    done, alone = torch.zeros(200, dtype=torch.int64), []

    def work(low, high):
        done[low:high] += 1
        alone.append((torch.get_num_threads(), torch.is_grad_enabled()))

    with torch.no_grad():
        for _ in range(3):
            for_chunks(work, 200, 32)
    assert done.tolist() == [3] * 200
    assert set(alone) == {(1, False)}
    assert torch.get_num_threads() == count


def test_an_error_of_a_thread_reaches_the_caller(threads):
    threads(2)

    def work(low, high):
        raise ValueError(f"rows {low} to {high}")

    with pytest.raises(ValueError, match="rows 0 to"):
        for_chunks(work, 64, 16)


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_the_order_of_their_parts(threads, count):
    threads(count)
    assert in_threads(lambda k: (k, torch.get_num_threads()), range(5)) == [
        (k, 1) for k in range(5)
    ]


def test_one_failure_ends_the_others_at_their_next_chunk(threads):
    threads(2)
    ended = []

    def work(part):
        if part == 1:
            raise MemoryError("too much")
        try:
            while True:
                for_chunks(lambda low, high: None, 16, 16)
        except StoppedError:
            ended.append(part)
            raise

    with pytest.raises(MemoryError, match="too much"):
        in_threads(work, [0, 1])
    assert ended == [0]
    assert in_threads(abs, [-1, -2]) == [1, 2]


def test_what_a_failed_thread_held_is_free_once_the_error_is_handled(threads):
    threads(2)
    held = []

    def work(part):
        rows = torch.zeros(100)
        held.append(weakref.ref(rows))
        raise MemoryError(f"part {part}")

    gc.disable()  # a retry with fewer rows comes at once
    try:
        with pytest.raises(MemoryError) as caught:
            in_threads(work, [0, 1])
        del caught
        assert [ref() for ref in held] == [None, None]
    finally:
        gc.enable()


def test_ctrl_c_ends_all_threads_at_their_next_chunk(threads):
    threads(2)
    ended, begun = [], threading.Barrier(2)

    def work(part):
        begun.wait()
        if part == 0:
            os.kill(os.getpid(), signal.SIGINT)
        try:
            while True:
                for_chunks(lambda low, high: None, 16, 16)
        finally:
            ended.append(part)

    # Test runs started in the background ignore the signal.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            in_threads(work, [0, 1])
    finally:
        signal.signal(signal.SIGINT, handler)
    assert sorted(ended) == [0, 1]
