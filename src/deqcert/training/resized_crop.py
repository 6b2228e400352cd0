"""Random resized crops: windows of random area and shape, cut from the original images.

The usual way to train on ImageNet. The rule is that of torchvision's ``RandomResizedCrop``; the
random numbers are our own, keyed by seed, epoch and image, so that a crop depends on nothing that
happened before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deqcert.data import Box, ChooseBox
from deqcert.errors import ConfigurationError
from deqcert.smoothing.noise import keyed_generator
from deqcert.training.checks import check_number

_TRIES = 10


@dataclass(frozen=True, kw_only=True)
class ResizedCrop:
    """What windows are cut; each is then resized to the size of the model's images.

    Attributes:
        area: Smallest and largest share of the image's area, drawn uniformly; in (0, 1].
        aspect: Smallest and largest width over height, drawn log-uniformly; > 0.

    Raises:
        ConfigurationError: A value out of range, or the smallest above the largest.
    """

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        for name, high in (("area", 1.0), ("aspect", math.inf)):
            pair = getattr(self, name)
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ConfigurationError(
                    f"resized_crop {name} must be two numbers, smallest and largest, "
                    f"but got {pair!r}"
                )
            for value in pair:
                check_number(f"resized_crop {name}", value, low=0.0, high=high, open_low=True)
            if pair[0] > pair[1]:
                raise ConfigurationError(
                    f"resized_crop {name} must not fall from {pair[0]} to {pair[1]}"
                )
            object.__setattr__(self, name, tuple(pair))  # JSON and TOML give lists


def choose_box(
    spec: ResizedCrop,
    generator: np.random.Generator,
    *,
    width: int,
    height: int,
) -> Box:
    """Return a random window of an image of `width` x `height` pixels.

    Up to ten draws of area and shape; the first that fits into the image is placed uniformly.
    Otherwise it is the largest window in the centre of a shape that is allowed.
    """
    areas = generator.uniform(*spec.area, size=_TRIES) * (width * height)
    shapes = np.exp(generator.uniform(*np.log(spec.aspect), size=_TRIES))
    for area, shape in zip(areas, shapes, strict=True):
        wide, tall = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < wide <= width and 0 < tall <= height:
            left = int(generator.integers(width - wide + 1))
            top = int(generator.integers(height - tall + 1))
            return left, top, left + wide, top + tall
    return _centre(spec, width=width, height=height)


def keyed_boxes(spec: ResizedCrop, *, seed: int, epoch: int) -> ChooseBox:
    """Return the windows of an epoch: a function of the image's index and size alone."""

    def choose(index: int, width: int, height: int) -> Box:
        generator = keyed_generator(seed, epoch, "train-crop", index)
        return choose_box(spec, generator, width=width, height=height)

    return choose


def _centre(spec: ResizedCrop, *, width: int, height: int) -> Box:
    """Return the largest window in the centre whose shape is allowed, one pixel at the least."""
    low, high = spec.aspect
    wide = min(width, max(1, round(height * high)))
    tall = min(height, max(1, round(width / low)))
    left, top = (width - wide) // 2, (height - tall) // 2
    return left, top, left + wide, top + tall
