"""Small geometric changes and crops of clean images, drawn from a keyed generator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from deqcert.errors import ConfigurationError
from deqcert.training.checks import require_known
from deqcert.training.resized_crop import ResizedCrop

_AFFINE = ("rotate", "shift", "scale", "stretch", "shear")


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """Largest changes; each image draws its own, uniformly between minus and plus these.

    Attributes:
        rotate: Rotation, degrees, in [0, 180].
        shift: Shift along each axis, pixels, >= 0.
        scale: Relative change of size, in [0, 1).
        stretch: Further relative change of the height alone, in [0, 1).
        shear: Horizontal shear, >= 0.
        flip: Whether half of the images are mirrored left to right; not for digits.
        crop: Whole pixels of zeros around the image, from which a window of its size is cut at
            random (4 is usual for CIFAR-10), >= 0.
        resized_crop: Random windows of the original images, resized, which training loads in place
            of the images themselves; for data sets that keep originals. See `ResizedCrop`; None
            takes the images as they are.

    Raises:
        ConfigurationError: A value out of range.
        UnknownNameError: Another setting of `resized_crop`.
    """

    rotate: float = 4.0
    shift: float = 0.2
    scale: float = 0.03
    stretch: float = 0.02
    shear: float = 0.04
    flip: bool = False
    crop: int = 0
    resized_crop: ResizedCrop | None = None

    @classmethod
    def crop_and_flip(cls, crop: int | ResizedCrop) -> AugmentSpec:
        """Return the changes usual for photographs: crops and mirror images alone."""
        resized = isinstance(crop, ResizedCrop)
        return cls(
            **dict.fromkeys(_AFFINE, 0.0),
            flip=True,
            crop=0 if resized else crop,
            resized_crop=crop if resized else None,
        )

    def __post_init__(self) -> None:
        if isinstance(self.resized_crop, Mapping):  # JSON and TOML give tables
            require_known(ResizedCrop, self.resized_crop, prefix="augment.resized_crop.")
            object.__setattr__(self, "resized_crop", ResizedCrop(**self.resized_crop))
        if not isinstance(self.resized_crop, (ResizedCrop, type(None))):
            raise ConfigurationError(
                f"resized_crop must be a table with area and aspect, but got {self.resized_crop!r}"
            )
        if type(self.crop) is not int or self.crop < 0:
            raise ConfigurationError(f"crop must be an integer >= 0, but got {self.crop!r}")
        highest = {
            "rotate": 180.0,
            "shift": math.inf,
            "scale": 1.0,
            "stretch": 1.0,
            "shear": math.inf,
        }
        for name, high in highest.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConfigurationError(f"augmentation {name} must be a number, but got {value!r}")
            if not (0.0 <= value <= high) or (value == high and name in ("scale", "stretch")):
                raise ConfigurationError(
                    f"augmentation {name} must be >= 0 and below {high:g}, but got {value}"
                )
        if self.scale + self.stretch >= 1.0:
            raise ConfigurationError(
                f"scale + stretch must stay below 1, but got {self.scale + self.stretch}"
            )


def augment(
    images: Tensor,  # (B, C, H, W)
    spec: AugmentSpec,
    generator: np.random.Generator,
) -> Tensor:  # (B, C, H, W)
    """Return `images` cropped, and changed by random affine maps, with zeros from outside.

    Resized crops are none of this: what is loaded already consists of them.

    A resampled pixel is an average of pixels and zeros (bilinear), so values stay in [0, 1].
    Without affine maps, crops and mirror images are exact copies of pixels.
    """
    if spec.crop:
        images = _crop(images, spec.crop, generator)
    if not any(getattr(spec, name) for name in _AFFINE):
        return _mirror(images, generator) if spec.flip else images
    return _transform(images, spec, generator)


def _crop(
    images: Tensor,  # (B, C, H, W)
    margin: int,
    generator: np.random.Generator,
) -> Tensor:  # (B, C, H, W)
    count, _, height, width = images.shape
    padded = F.pad(images, [margin] * 4).permute(0, 2, 3, 1)
    corners = generator.integers(2 * margin + 1, size=(2, count))
    down = torch.from_numpy(corners[0][:, None] + np.arange(height))  # (B, H)
    right = torch.from_numpy(corners[1][:, None] + np.arange(width))  # (B, W)
    each = torch.arange(count)[:, None, None]
    return padded[each, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _mirror(images: Tensor, generator: np.random.Generator) -> Tensor:  # (B, C, H, W)
    chosen = torch.from_numpy(generator.random(len(images)) < 0.5)
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def _transform(
    images: Tensor,  # (B, C, H, W)
    spec: AugmentSpec,
    generator: np.random.Generator,
) -> Tensor:  # (B, C, H, W)
    """Return `images` under random affine maps."""
    count, _, height, width = images.shape
    u = generator.uniform(-1.0, 1.0, size=(6, count))
    angle = np.deg2rad(spec.rotate) * u[0]
    size = 1.0 + spec.scale * u[1]
    tall = size + spec.stretch * u[2]
    mirror = np.where(generator.random(count) < 0.5, -1.0, 1.0) if spec.flip else np.ones(count)
    # affine_grid maps output to input positions in units of half the image.
    rows = [
        [
            mirror * np.cos(angle) * size,
            -np.sin(angle) + spec.shear * u[3],
            _half(spec, u[4], width),
        ],
        [mirror * np.sin(angle), np.cos(angle) * tall, _half(spec, u[5], height)],
    ]
    maps = torch.from_numpy(np.array(rows, dtype=np.float32)).permute(2, 0, 1).to(images.device)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _half(spec: AugmentSpec, u: np.ndarray, size: int) -> np.ndarray:  # (B,) -> (B,)
    """Return shifts in pixels as `affine_grid` counts them."""
    return spec.shift * u * 2.0 / size
