"""A data set in memory: compact bytes inside, float32 images in [0, 1] outside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deqcert.errors import DataError


@dataclass(frozen=True, eq=False)
class Example:
    """One image with its place in the data set.

    Attributes:
        index: Position in the split, from 0; it names the image in noise streams and run folders.
        image: float32 tensor in [0, 1]. shape: (C, H, W)
        label: Class, 0 <= label < num_classes.
    """

    index: int
    image: Tensor
    label: int


@dataclass(frozen=True, eq=False)
class Dataset:
    """A split of a named data set; ``data[i]`` is an `Example`.

    Pixels stay unsigned bytes until asked for: CIFAR-10's training set takes 154 MB, not 614.

    Attributes:
        name: Name in the registry, for example ``"digits"``.
        split: ``"train"`` or ``"test"``.
        pixels: uint8 values from 0 to `levels`. shape: (N, C, H, W)
        labels: int64 classes. shape: (N,)
        levels: The byte that stands for 1.0 (255, or 16 for digits).
        class_names: One name per class.
        licence: Licence and source, in a line.
    """

    name: str
    split: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    levels: int
    class_names: tuple[str, ...]
    licence: str

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4:
            raise DataError(f"{self.name}: pixels must be uint8 of shape (N, C, H, W)")
        if self.labels.shape != self.pixels.shape[:1]:
            raise DataError(
                f"{self.name}: {len(self.pixels)} images but {len(self.labels)} labels; "
                "the files do not belong together"
            )
        _require_range(f"{self.name}: pixel", self.pixels, self.levels)
        _require_range(f"{self.name}: label", self.labels, self.num_classes - 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        position = range(len(self))[
            index
        ]  # accepts negative indices, raises IndexError like a list
        return Example(position, self._scaled(position), int(self.labels[position]))

    def batch(self, indices: Sequence[int] | NDArray[np.integer] | Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and labels at `indices`, in that order.

        Returns:
            float32 images in [0, 1], shape (B, C, H, W), and int64 labels, shape (B,).
        """
        rows = np.asarray(indices, dtype=np.int64)
        return self._scaled(rows), torch.from_numpy(self.labels[rows])

    def _scaled(self, rows: int | NDArray[np.int64]) -> Tensor:
        """Pixels at `rows` divided by `levels`, by one rule for one image and for many."""
        return torch.from_numpy(self.pixels[rows].astype(np.float32) / np.float32(self.levels))

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one image, (C, H, W)."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over shape, levels, pixel bytes and labels: the identity of the content."""
        header = f"{self.pixels.shape} {self.levels} {self.num_classes}\n"
        state = hashlib.sha256(header.encode())
        state.update(np.ascontiguousarray(self.pixels).data)
        state.update(self.labels.astype("<i8").tobytes())
        return state.hexdigest()

    def __repr__(self) -> str:
        return f"<Dataset {self.name} {self.split}: {len(self)} images of shape {self.input_shape}>"


def _require_range(what: str, values: NDArray[np.integer], largest: int) -> None:
    """Raise DataError unless all values lie in 0..largest."""
    if values.size and (values.min() < 0 or values.max() > largest):
        bad = int(values.max()) if values.max() > largest else int(values.min())
        raise DataError(f"{what} values must lie in 0..{largest}, but got {bad}; replace the file")
