"""One image file as the tensor a model takes."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deqcert.errors import DataError, InputError

MODES = {1: "L", 3: "RGB"}


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
    from PIL import Image, UnidentifiedImageError

    channels, height, width = input_shape
    if channels not in MODES:
        raise InputError(f"an image file has 1 or 3 channels, but the model takes {channels}")
    try:
        with Image.open(Path(path)) as image:
            _require_fit(image, Path(path), height=height, width=width)
            pixels = np.asarray(image.convert(MODES[channels]), dtype=np.float32)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not an image that can be read") from error
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for damaged PNG files
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"cannot read {path}: {reason or error}") from error
    scaled = pixels.reshape(height, width, channels).transpose(2, 0, 1) / np.float32(255)
    return torch.from_numpy(np.ascontiguousarray(scaled))


def _require_fit(image, path: Path, *, height: int, width: int) -> None:  # image: PIL.Image.Image
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
