"""Images cut into blocks: the same record for any block size, whoever does which block."""

from __future__ import annotations

import pickle
import random
from concurrent.futures import Future
from typing import Any

import pytest

from deqcert.data import load_data
from deqcert.runners.blocks import SpreadSampler, chains_per_block
from deqcert.runners.crew import TimeLimitError
from deqcert.runners.tasks import Picture, SerialDraws, Task
from deqcert.smoothing import Certifier
from deqcert.smoothing.sampling import no_progress
from deqcert.smoothing.streams import DEVICE_STREAM
from tests.checks.runs import MeansDEQ, monotone_model

SETTINGS: dict[str, dict[str, Any]] = {
    "standard": {"method": "standard"},
    "standard, noise of a device": {"method": "standard", "noise_stream": DEVICE_STREAM},
    "srs, noise of a device": {"method": "srs", "noise_stream": DEVICE_STREAM},
    "srs, planned": {"method": "srs", "audit": "auto", "n": 700},
    "srs, previous": {"method": "srs"},
    "srs, clean": {"method": "srs", "start": "clean"},
    "srs, linear": {"method": "srs", "start": "linear", "reference": "picard:12"},
    "srs-paper": {"method": "srs-paper"},
    "srs-paper, linear": {"method": "srs-paper", "start": "linear", "reference": "picard:12"},
    "proved, previous": {"method": "proved", "reference": "picard:60"},
    "proved, clean": {"method": "proved", "reference": "picard:60", "start": "clean"},
}


def certifier(name: str) -> Certifier:
    own = SETTINGS[name]
    model = monotone_model() if own["method"] == "proved" else MeansDEQ()
    defaults = {"sigma": 0.3, "n0": 40, "n": 290, "chains": 70, "audit": 90}
    return Certifier(model, **{**defaults, **own})


class Elsewhere:
    """Does tasks as a worker would, of copies that were sent, and notes them."""

    def __init__(self, certifier: Certifier) -> None:
        self.certifier = certifier
        self.tasks: list[Task] = []

    def submit(self, task: Task) -> Future[Any]:
        self.tasks.append(task)
        future: Future[Any] = Future()
        sent = pickle.loads(pickle.dumps(task))
        future.set_result(pickle.loads(pickle.dumps(sent.run(self.certifier, no_progress))))
        return future


def record(subject: Certifier, index: int, block: int | None) -> tuple[Any, list[Task]]:
    image, elsewhere = load_data("digits")[index].image, Elsewhere(subject)
    if block is None:
        return {**subject.certify(image, seed=5, index=index).to_json(), "seconds": 0}, []
    sampler = SpreadSampler(
        subject.classifier,
        subject.noise(5, index),
        Picture(index, 5, image.numpy()),
        block=block,
        submit=elsewhere.submit,
    )
    return {**subject.certificate(sampler).to_json(), "seconds": 0}, elsewhere.tasks


@pytest.mark.parametrize("name", SETTINGS)
def test_every_block_size_gives_the_record_of_the_whole(name: str):
    subject = certifier(name)
    for index in (0, 11):
        whole, _ = record(subject, index, None)
        assert sum(whole["counts"]) > 0
        for block in (16, 97):
            found, tasks = record(subject, index, block)
            assert found == whole, block
            if block == 16:
                assert len(tasks) > 5


def test_chains_stay_whole_and_draws_are_there_once():
    n, subject = 290, certifier("srs, previous")
    _, tasks = record(subject, 0, 50)
    parts = [t.chains for t in tasks if isinstance(t, SerialDraws) and t.stage == "estimation"]
    assert [c for part in parts for c in part] == list(range(70))
    assert all(part.start % 16 == 0 for part in parts)
    assert len(parts) == 5
    assert chains_per_block(n, 70, 50) == 16


def test_a_block_that_fails_cancels_the_others():
    subject = certifier("standard")
    promised: list[Future[Any]] = []

    def submit(task: Task) -> Future[Any]:
        del task
        promised.append(Future())
        if len(promised) == 2:
            promised[0].set_exception(TimeLimitError())
        return promised[-1]

    sampler = SpreadSampler(
        subject.classifier,
        subject.noise(5, 0),
        Picture(0, 5, load_data("digits")[0].image.numpy()),
        block=16,
        submit=submit,
    )
    with pytest.raises(TimeLimitError):
        subject.certificate(sampler)
    assert [future.cancelled() for future in promised] == [False, True, True]


def test_the_order_in_which_blocks_are_done_does_not_matter():
    subject = certifier("srs, linear")
    whole, _ = record(subject, 3, None)
    waiting: list[tuple[Task, Future[Any]]] = []

    class Late(Future):
        def result(self, timeout: float | None = None) -> Any:
            random.Random(len(waiting)).shuffle(waiting)
            while waiting:
                task, future = waiting.pop()
                future.set_result(task.run(subject, no_progress))
            return super().result(timeout)

    def submit(task: Task) -> Future[Any]:
        waiting.append((task, Late()))
        return waiting[-1][1]

    picture = Picture(3, 5, load_data("digits")[3].image.numpy())
    sampler = SpreadSampler(
        subject.classifier, subject.noise(5, 3), picture, block=32, submit=submit
    )
    assert {**subject.certificate(sampler).to_json(), "seconds": 0} == whole
