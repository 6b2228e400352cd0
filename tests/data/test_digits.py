"""The embedded digits against scikit-learn's copy of them."""

from __future__ import annotations

import numpy as np
import pytest

from deqcert.data import load_data
from deqcert.data._make_digits import SEED


@pytest.fixture(scope="module")
def source() -> tuple[np.ndarray, np.ndarray]:
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    flat, labels = load_digits(return_X_y=True)
    return flat.reshape(-1, 1, 8, 8), labels


def test_splits_are_the_fixed_permutation_of_the_source(
    source: tuple[np.ndarray, np.ndarray],
) -> None:
    images, labels = source
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(1797)
    for split, rows in (("train", order[:1400]), ("test", order[1400:])):
        data = load_data("digits", split=split)
        found, found_labels = data.batch(range(len(data)))
        np.testing.assert_array_equal(found.numpy(), images[rows] / 16)
        np.testing.assert_array_equal(found_labels.numpy(), labels[rows])


def test_shapes_and_numbers() -> None:
    train, test = load_data("digits", split="train"), load_data("digits")
    assert (len(train), len(test), test.split) == (1400, 397, "test")
    assert test.input_shape == (1, 8, 8)
    assert test.num_classes == 10
    assert test.class_names == tuple("0123456789")
    assert "CC BY 4.0" in test.licence
    assert np.bincount(test.labels).min() >= 25, "every class is in the test split"


def test_content_is_pinned() -> None:
    # Run folders compare these: a change would make every earlier run another run.
    digests = {split: load_data("digits", split=split).digest for split in ("train", "test")}
    assert digests == {
        "train": "59d621cf376c65fd15a4fba409a9da9452f4166d7c22e1f1d7309ef6041262b8",
        "test": "d50628371633ae8c60831ac0ecfb34873e2dd55cc7c1485d3a192d1901bc21a6",
    }
