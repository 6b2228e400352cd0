"""One image from a file, as a model wants it."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from deqcert.errors import DataError, InputError

_MODES = {1: "L", 3: "RGB"}


def read_image(
    path: str | PathLike[str], shape: tuple[int, int, int]
) -> Tensor:  # (C, H, W) float32 in [0, 1]
    """Read an image file (PNG, JPEG ...) as float32 pixels in [0, 1].

    The file is converted to grey or RGB as `shape` asks, but never resized: resizing changes what a
    radius in pixel units means.

    Raises:
        DataError: The file is missing or not a readable image.
        InputError: Another size, or a number of channels that is neither 1 nor 3.
    """
    file = Path(path)
    channels, height, width = shape
    if channels not in _MODES:
        raise InputError(f"image files give 1 or 3 channels, but the model takes {channels}")
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert(_MODES[channels]), dtype=np.float32) / 255.0
    except FileNotFoundError as error:
        raise DataError(f"no such image file: {file}") from error
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is not a readable image: {error}") from error
    if pixels.shape[:2] != (height, width):
        found = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise InputError(
            f"the model takes images of {width}x{height} pixels, but {file} has {found}"
        )
    planes = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes))
