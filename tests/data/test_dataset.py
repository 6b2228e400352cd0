"""What every data set promises, on embedded digits and on arrays made here."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from deqcert.data import SOURCES, ArrayDataset, load_data
from deqcert.data.source import ArraySource
from deqcert.errors import DataError, UnknownNameError


def made(pixels: np.ndarray, labels: list[int], levels: int = 255) -> ArrayDataset:
    return ArrayDataset(
        name="made",
        split="test",
        pixels=pixels,
        labels=np.array(labels),
        levels=levels,
        class_names=("a", "b", "c"),
        licence="none",
    )


@pytest.fixture(scope="module")
def ramp() -> ArrayDataset:
    return made(np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8), [0, 1, 2, 1])


def test_pixels_are_exact_quotients_in_the_unit_interval(ramp: ArrayDataset) -> None:
    images, labels = ramp.batch(range(4))
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    expected = (np.arange(256) / 255).astype(np.float32).reshape(4, 1, 8, 8)
    np.testing.assert_array_equal(images.numpy(), expected)
    assert labels.tolist() == [0, 1, 2, 1]


def test_batch_follows_the_order_asked_for_and_equals_single_examples(ramp: ArrayDataset) -> None:
    order = [2, 0, 2, 3]
    for indices in (order, np.array(order), torch.tensor(order)):
        images, labels = ramp.batch(indices)
        for row, index in enumerate(order):
            example = ramp[index]
            assert example.index == index
            assert torch.equal(images[row], example.image)
            assert labels[row] == example.label


def test_iterating_gives_every_example_once(ramp: ArrayDataset) -> None:
    assert [example.index for example in ramp] == [0, 1, 2, 3]
    assert ramp[-1].index == 3
    for index in (4, -5):
        with pytest.raises(IndexError):
            ramp[index]


def test_changing_an_image_leaves_the_data_alone(ramp: ArrayDataset) -> None:
    ramp[0].image.fill_(9.0)
    ramp.batch([0])[0].fill_(9.0)
    assert ramp[0].image.max() <= 1.0


def test_digest_depends_on_pixels_labels_shape_and_levels(ramp: ArrayDataset) -> None:
    pixels = ramp.pixels.copy()
    assert made(pixels, [0, 1, 2, 1]).digest == ramp.digest
    others = [
        made(pixels, [0, 1, 2, 2]),
        made(pixels.reshape(4, 1, 4, 16), [0, 1, 2, 1]),
        made(np.minimum(pixels, 254), [0, 1, 2, 1]),
        made(np.minimum(pixels, 254), [0, 1, 2, 1], levels=254),
    ]
    digests = {ramp.digest, *(other.digest for other in others)}
    assert len(digests) == 5
    state = hashlib.sha256(b"(4, 1, 8, 8) 255 3\n" + bytes(range(256)))
    state.update(b"".join(label.to_bytes(8, "little") for label in [0, 1, 2, 1]))
    assert ramp.digest == state.hexdigest()


@pytest.mark.parametrize(
    ("pixels", "labels", "levels", "reason"),
    [
        (np.zeros((2, 1, 2, 2), np.uint8), [0], 255, "2 images but 1 labels"),
        (np.zeros((1, 1, 2, 2), np.uint8), [3], 255, r"label values must lie in 0\.\.2, but got 3"),
        (np.zeros((1, 1, 2, 2), np.uint8), [-1], 255, "but got -1"),
        (np.full((1, 1, 2, 2), 17, np.uint8), [0], 16, r"pixel values must lie in 0\.\.16"),
        (np.zeros((1, 1, 2, 2), np.float32), [0], 255, "must be uint8"),
        (np.zeros((1, 2, 2), np.uint8), [0], 255, "shape"),
    ],
)
def test_contents_that_do_not_fit(
    pixels: np.ndarray, labels: list[int], levels: int, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        made(pixels, labels, levels)


def test_unknown_names_list_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fashion-mnist'"):
        load_data("fashion_mnist")
    with pytest.raises(UnknownNameError, match=r"did you mean 'cifar10'.*known: cifar10, digits"):
        load_data("cifar-10")
    with pytest.raises(UnknownNameError, match="unknown split 'tests'; did you mean 'test'"):
        load_data("digits", split="tests")


def test_every_source_names_its_classes_and_licence() -> None:
    assert set(SOURCES) == {"digits", "mnist", "fashion-mnist", "cifar10", "imagenet"}
    for name, source in SOURCES.items():
        assert source.name == name
        assert source.licence
        assert set(source.sizes) == {"train", "test"}
        if isinstance(source, ArraySource):
            assert len(set(source.class_names)) == 10
