"""Single image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deqcert.data import load_data, read_image
from deqcert.errors import DataError, InputError

PIXELS = np.random.Generator(np.random.PCG64(2)).integers(0, 256, (5, 4, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_colour_and_grey_files_are_exact(tmp_path: Path) -> None:
    colour = read_image(save(tmp_path / "colour.png", PIXELS), (3, 5, 4))
    expected = torch.from_numpy(PIXELS.astype(np.float32) / np.float32(255)).permute(2, 0, 1)
    assert torch.equal(colour, expected)
    grey = read_image(str(save(tmp_path / "grey.png", PIXELS[:, :, 0])), (1, 5, 4))
    assert torch.equal(grey, expected[:1])


def test_grey_file_for_a_colour_model_and_the_reverse(tmp_path: Path) -> None:
    grey = np.repeat(PIXELS[:, :, :1], 3, axis=2)
    assert torch.equal(
        read_image(save(tmp_path / "grey.png", PIXELS[:, :, 0]), (3, 5, 4)),
        read_image(save(tmp_path / "grey in colour.png", grey), (3, 5, 4)),
    )
    one = read_image(save(tmp_path / "grey in colour.png", grey), (1, 5, 4))
    assert torch.equal(one[0], torch.from_numpy(PIXELS[:, :, 0] / np.float32(255)))


def test_a_stored_example_comes_back(tmp_path: Path) -> None:
    example = load_data("digits")[3]
    # 255 / 16 is no integer: the file holds the nearest byte.
    stored = np.round(example.image[0].numpy() * 255).astype(np.uint8)
    image = read_image(save(tmp_path / "digit.png", stored), (1, 8, 8))
    assert (image - example.image).abs().max() <= 0.5 / 255 + 1e-7


def test_other_sizes_and_kinds_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "image.png", PIXELS)
    with pytest.raises(InputError, match="has 4 x 5 pixels, but the model takes 8 x 8"):
        read_image(path, (1, 8, 8))
    with pytest.raises(InputError, match="the model takes 4"):
        read_image(path, (4, 5, 4))
    Image.fromarray(PIXELS).convert("RGBA").save(tmp_path / "alpha.png")
    with pytest.raises(InputError, match="is transparent"):
        read_image(tmp_path / "alpha.png", (3, 5, 4))
    Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match="expected 8-bit"):
        read_image(tmp_path / "deep.png", (1, 5, 4))


def test_files_that_are_no_images(tmp_path: Path) -> None:
    path = save(tmp_path / "image.png", PIXELS)
    content = path.read_bytes()
    for damaged in (b"", b"text", content[:40], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"image\.png") as caught:
            read_image(path, (3, 5, 4))
        assert "\n" not in str(caught.value)
    for missing in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(DataError, match="cannot read"):
            read_image(missing, (3, 5, 4))
