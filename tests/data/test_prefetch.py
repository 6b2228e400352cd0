"""Prefetching changes when batches are loaded, never what they hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from deqcert.data import load_data, prefetched
from deqcert.errors import ConfigurationError, DataError
from tests.data.test_imagenet import lay_out, load

BATCHES = [[3, 1], [0], [396, 2, 2], [5, 6], [7]]


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_batches_come_complete_and_in_order(ahead: int) -> None:
    data = load_data("digits")
    found = list(prefetched(data, BATCHES, ahead=ahead))
    assert len(found) == len(BATCHES)
    for (images, labels), rows in zip(found, BATCHES, strict=True):
        expected = data.batch(rows)
        assert torch.equal(images, expected[0])
        assert torch.equal(labels, expected[1])


def test_endless_orders_are_taken_only_so_far_ahead() -> None:
    taken = []

    def endless() -> Iterator[list[int]]:
        while True:
            taken.append(len(taken))
            yield [taken[-1]]

    batches = prefetched(load_data("digits"), endless(), ahead=2)
    for count in range(5):
        next(batches)
        assert len(taken) == count + 3
    batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_an_error_comes_in_the_place_of_its_batch(tmp_path: Path) -> None:
    data = load(lay_out(tmp_path))
    (tmp_path / data.files[2]).write_bytes(b"damaged")
    batches = prefetched(data, [[0], [1], [2], [3]], ahead=3)
    assert [next(batches)[1].tolist() for _ in range(2)] == [[0], [0]]
    with pytest.raises(DataError, match="n00000002_0"):
        next(batches)
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_ahead_must_be_positive() -> None:
    with pytest.raises(ConfigurationError, match="must be >= 1, but got 0"):
        prefetched(load_data("digits"), BATCHES, ahead=0)
