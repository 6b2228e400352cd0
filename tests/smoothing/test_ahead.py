"""Noise made ahead: the same noise, one batch ahead, and no thread left behind."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest

from deqcert.smoothing import Certifier
from deqcert.smoothing.ahead import made_ahead
from deqcert.smoothing.noise import BLOCK
from tests.problems import LinearDEQ, image_at
from tests.smoothing.test_sampling import sampler


def helpers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("deqcert-ahead")]


@pytest.mark.parametrize("batch_size", [3, 50, 400])
def test_batches_are_the_draws_asked_for(batch_size: int):
    subject = sampler(LinearDEQ(), batch_size=batch_size)
    scattered = np.flatnonzero(np.random.default_rng(0).random(900) < 0.1)
    for indices in (range(130), scattered, np.arange(BLOCK - 1, 2 * BLOCK + 1), range(0)):
        whole = subject.noisy("estimation", indices).numpy()
        with subject.batches("estimation", indices) as batches:
            parts = [(place, images.numpy()) for place, images in batches]
        assert all(len(place) == len(images) <= batch_size for place, images in parts)
        found = [images for _, images in parts] or [whole]
        assert np.array_equal(np.concatenate(found), whole)
        assert [i for place, _ in parts for i in place] == list(range(len(indices)))


def test_one_thing_is_made_ahead_and_no_more():
    made: list[int] = []
    ready = threading.Semaphore(0)

    def make(part: int) -> int:
        made.append(part)
        ready.release()
        return part

    with made_ahead(make, range(5)) as pairs:
        for part, _ in pairs:
            # The next one comes while this one is in use, without our asking for it.
            for _ in range(2 if part == 0 else 1 if part < 4 else 0):
                assert ready.acquire(timeout=20)
            assert made == list(range(min(part + 2, 5)))
            assert helpers()
    assert not helpers()


@pytest.mark.parametrize("at", [0, 1, 3])
def test_an_error_comes_where_its_result_would_have_come(at: int):
    def make(part: int) -> float:
        return 1 / (part - at)

    seen = []

    def use_all() -> None:
        with made_ahead(make, range(5)) as pairs:
            seen.extend(part for part, _ in pairs)

    with pytest.raises(ZeroDivisionError):
        use_all()
    assert seen == list(range(at))
    assert not helpers()


@pytest.mark.parametrize("method", ["standard", "srs"])
def test_an_interrupted_certificate_leaves_no_thread(method: str):
    # A test run that was started in the background inherits an ignored Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupted(method)
    finally:
        signal.signal(signal.SIGINT, before)


def interrupted(method: str) -> None:
    subject = Certifier(
        LinearDEQ(), sigma=0.25, n0=50, n=2000, method=method, batch_size=16, audit=100
    )
    stages = []

    def interrupt(stage: str, done: int, total: int) -> None:
        stages.append(stage)
        if stage == "estimation" and done > 500:
            assert helpers()
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        subject.certify(image_at(0.1), seed=0, progress=interrupt)
    assert not helpers()
    whole = subject.certify(image_at(0.1), seed=0)
    assert whole.n == 2000
    assert not helpers()
