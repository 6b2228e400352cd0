"""Image files as the pixels a model takes: exactly as stored, or resized and cropped."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from deqcert.errors import DataError, DeqcertError, InputError

MODES = {1: "L", 3: "RGB"}
EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")

MAX_PIXELS = 89_478_485
"""Largest image that is decoded: Pillow's limit against files that unpack to fill the memory."""


Box = tuple[int, int, int, int]
"""A window of an image: left, top, right and bottom edge in pixels, the last two excluded."""


def read_image(path: str | PathLike[str], input_shape: tuple[int, int, int]) -> Tensor:
    """Read an 8-bit image file (PNG, JPEG ...) of exactly the model's size.

    Nothing is resized: a certificate is about the very pixels the model sees. A colour file becomes
    grey for a model of one channel, a grey one is repeated for a model of three.

    Args:
        path: The file.
        input_shape: (C, H, W) with C = 1 or 3.

    Returns:
        float32 tensor in [0, 1]. shape: (C, H, W)

    Raises:
        DataError: Missing, or not an image that can be read.
        InputError: Another size, transparent, or not 8-bit.
    """
    channels, height, width = input_shape
    if channels not in MODES:
        raise InputError(f"an image file has 1 or 3 channels, but the model takes {channels}")
    with _opened(Path(path)) as image:
        _require_fit(image, Path(path), height=height, width=width)
        pixels = np.asarray(image.convert(MODES[channels]), dtype=np.float32)
    scaled = pixels.reshape(height, width, channels).transpose(2, 0, 1) / np.float32(255)
    return torch.from_numpy(np.ascontiguousarray(scaled))


def read_crop(path: Path, *, resize: int, crop: int) -> NDArray[np.uint8]:
    """Read an image file, resize its short side, and cut the square in the centre.

    The standard preprocessing of ImageNet, to the byte as torchvision's ``Resize(256)`` and
    ``CenterCrop(224)`` do it to a Pillow image: bilinear with antialiasing, the long side rounded
    down, the crop's corner rounded to even. Grey, palette and CMYK files become RGB, transparency
    is dropped, the orientation tag is not applied.

    Args:
        path: The file.
        resize: Pixels of the short side.
        crop: Pixels of the square, at most `resize`.

    Returns:
        RGB bytes. shape: (3, crop, crop)

    Raises:
        DataError: Missing, damaged, not 8-bit, or too large to be decoded; it names the file.
    """
    with _opened(path) as image:
        _require_eight_bit(path, image)
        size = _resized(image.size, resize)
        _require_decodable(path, size)
        # RGB first: averages of palette indices would mean nothing.
        small = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        left, top = (round((side - crop) / 2) for side in size)
        pixels = np.asarray(small.crop((left, top, left + crop, top + crop)))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def read_window(
    path: Path, *, choose: Callable[[int, int], Box], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Read an image file, cut a window, and resize the window, its aspect not kept.

    As torchvision's ``resized_crop`` does it to a Pillow image: cut first, so that no pixel from
    outside the window enters, then bilinear with antialiasing. Colours as in `read_crop`.

    Args:
        path: The file.
        choose: Gives the window from the width and height of the image, which it lies within.
        size: Height and width of the result, pixels.

    Returns:
        RGB bytes. shape: (3, *size)

    Raises:
        DataError: Missing, damaged, not 8-bit, or too large to be decoded; it names the file.
    """
    with _opened(path) as image:
        _require_eight_bit(path, image)
        window = image.crop(choose(*image.size)).convert("RGB")
        height, width = size
        pixels = np.asarray(window.resize((width, height), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _require_eight_bit(path: Path, image: Image.Image) -> None:
    if image.mode not in EIGHT_BIT:
        raise DataError(f"{path} has pixels of mode {image.mode!r}, expected 8-bit")


def _resized(size: tuple[int, int], short: int) -> tuple[int, int]:
    """Width and height once the short side has `short` pixels."""
    width, height = size
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; whatever goes wrong inside becomes a DataError that names it."""
    try:
        with Image.open(path) as image:
            _require_decodable(path, image.size)
            yield image
    except DeqcertError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path} is too large to be decoded: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image that can be read") from error
    # Pillow raises SyntaxError for damaged PNG files, and some decoders the others.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"cannot read {path}: {reason or error}") from error


def _require_decodable(path: Path, size: tuple[int, int]) -> None:
    """Raise DataError for more than MAX_PIXELS, before or after resizing."""
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(
            f"{path} is too large to be decoded: {size[0]} x {size[1]} pixels are more than "
            f"{MAX_PIXELS}"
        )


def _require_fit(image: Image.Image, path: Path, *, height: int, width: int) -> None:
    """Raise InputError unless the image can be taken as it is."""
    if image.size != (width, height):
        raise InputError(
            f"{path} has {image.width} x {image.height} pixels, "
            f"but the model takes {width} x {height}"
        )
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        raise InputError(f"{path} is transparent; save it without an alpha channel")
    if image.mode not in ("1", "L", "P", "RGB", "YCbCr"):
        raise InputError(f"{path} has pixels of mode {image.mode!r}, expected 8-bit grey or colour")
