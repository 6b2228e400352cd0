"""A data set in memory: compact bytes inside, float32 images in [0, 1] outside."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deqcert.data.dataset import Dataset, require_range
from deqcert.errors import DataError


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ArrayDataset(Dataset):
    """A split whose images lie in memory.

    Pixels stay unsigned bytes until asked for: CIFAR-10's training set takes 154 MB, not 614.

    Attributes:
        pixels: uint8 values from 0 to `levels`. shape: (N, C, H, W)
        levels: The byte that stands for 1.0 (255, or 16 for digits).
    """

    pixels: NDArray[np.uint8]
    levels: int

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4:
            raise DataError(f"{self.name}: pixels must be uint8 of shape (N, C, H, W)")
        if self.labels.shape != self.pixels.shape[:1]:
            raise DataError(
                f"{self.name}: {len(self.pixels)} images but {len(self.labels)} labels; "
                "the files do not belong together"
            )
        require_range(f"{self.name}: pixel", self.pixels, self.levels)
        super().__post_init__()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one image, (C, H, W)."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def images(self, rows: NDArray[np.int64]) -> Tensor:  # rows: (B,)
        """Return the pixels at `rows` divided by `levels`, shape (B, C, H, W)."""
        return torch.from_numpy(self.pixels[rows].astype(np.float32) / np.float32(self.levels))

    def compute_digest(self) -> str:
        """Return the SHA-256 (hex) over shape, levels, pixel bytes and labels."""
        header = f"{self.pixels.shape} {self.levels} {self.num_classes}\n"
        state = hashlib.sha256(header.encode())
        state.update(np.ascontiguousarray(self.pixels).data)
        state.update(self.labels.astype("<i8").tobytes())
        return state.hexdigest()
