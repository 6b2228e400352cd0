"""Windows of original images: the pixels asked for and no others, resized, in any order."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deqcert.data import Box, FolderDataset, load_data, prefetched
from deqcert.errors import ConfigurationError, DataError
from tests.data.test_imagenet import lay_out, load


def small(folder: Path, size: int = 32) -> FolderDataset:
    return dataclasses.replace(load(folder), resize=size + 4, crop=size)


def whole(index: int, width: int, height: int) -> Box:
    del index
    return 0, 0, width, height


def put(data: FolderDataset, index: int, image: Image.Image) -> None:
    image.save(data.root / data.files[index], "PNG")


def test_the_whole_of_a_square_image_of_that_size_is_the_image(tmp_path: Path) -> None:
    data = small(lay_out(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    put(data, 0, Image.fromarray(pixels))
    (found,), labels = data.batch([0], choose=whole)
    expected = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    assert torch.equal(found, expected)
    assert labels.tolist() == [0]


def test_a_window_of_that_size_is_copied(tmp_path: Path) -> None:
    data = small(lay_out(tmp_path))
    pixels = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    put(data, 0, Image.fromarray(pixels))
    (found,), _ = data.batch([0], choose=lambda index, width, height: (30, 11, 62, 43))
    np.testing.assert_array_equal(
        found.numpy() * 255, pixels[11:43, 30:62].transpose(2, 0, 1).astype(np.float32)
    )


@pytest.mark.parametrize("box", [(20, 10, 100, 90), (20, 10, 30, 90), (27, 40, 41, 47)])
def test_no_pixel_from_outside_the_window_enters(tmp_path: Path, box: Box) -> None:
    data = small(lay_out(tmp_path))
    pixels = np.full((100, 120, 3), 255, dtype=np.uint8)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = 51
    put(data, 0, Image.fromarray(pixels))
    (found,), _ = data.batch([0], choose=lambda index, width, height: box)
    assert found.shape == (3, 32, 32)
    assert torch.equal(found, torch.full_like(found, 0.2))


def test_halving_averages_and_stretching_does_not_keep_the_aspect(tmp_path: Path) -> None:
    """A ramp along one axis stays a ramp: each pixel the mean of those it covers."""
    data = small(lay_out(tmp_path), size=16)
    ramp = np.repeat(np.arange(0, 64, dtype=np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    put(data, 0, Image.fromarray(ramp))
    (found,), _ = data.batch([0], choose=whole)  # 64 x 32 to 16 x 16: a fourth and a half
    middle = 4 * np.arange(16) + 1.5
    np.testing.assert_allclose(255 * found[0, 5, 1:-1].numpy(), middle[1:-1], atol=0.5 + 1e-4)
    assert torch.equal(found[:, :1].expand_as(found), found)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_colours_become_rgb(tmp_path: Path, mode: str) -> None:
    data = small(lay_out(tmp_path))
    red = Image.new("RGB", (40, 40), (255, 0, 0)).convert(mode)
    red.save(data.root / data.files[0], "TIFF" if mode == "CMYK" else "PNG")
    (found,), _ = data.batch([0], choose=lambda index, width, height: (3, 3, 20, 9))
    expected = np.asarray(red.convert("RGB"))[0, 0] / np.float32(255)
    np.testing.assert_allclose(found[:, 0, 0], expected, atol=1e-6)


def test_windows_depend_on_nothing_but_the_image(tmp_path: Path) -> None:
    data, order = small(lay_out(tmp_path)), [4, 0, 4, 5, 1]
    seen = set()

    def choose(index: int, width: int, height: int) -> Box:
        seen.add((index, width, height))
        return 10 * index, 3 * index, width - index, height - 20

    images, labels = data.batch(order, choose=choose)
    assert images.dtype == torch.float32
    assert float(images.min()) >= 0.0
    assert float(images.max()) <= 1.0
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[3])
    for index in order:
        with Image.open(data.root / data.files[index]) as image:
            assert (index, *image.size) in seen
    threaded = dataclasses.replace(data, workers=3)
    assert torch.equal(threaded.batch(order, choose=choose)[0], images)
    ahead = list(prefetched(data, [[i] for i in order], choose=choose))
    assert torch.equal(torch.cat([part for part, _ in ahead]), images)
    assert torch.equal(torch.cat([part for _, part in ahead]), labels)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    data = small(lay_out(tmp_path))
    (data.root / data.files[2]).write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"n00000002_0\.JPEG is not an image"):
        data.batch([0, 2], choose=whole)
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(data.root / data.files[2], "PNG")
    with pytest.raises(DataError, match="pixels of mode 'I;16', expected 8-bit"):
        data.batch([0, 2], choose=whole)


def test_data_without_originals_refuse_in_a_line() -> None:
    data = load_data("digits")
    assert not data.keeps_originals
    with pytest.raises(ConfigurationError, match="digits keeps 8 x 8 pixels alone; use crop"):
        data.batch([0], choose=whole)
    with pytest.raises(ConfigurationError, match="digits keeps"):
        next(prefetched(data, [[0]], choose=whole))
