"""Digits, embedded: 1,797 handwritten digits of 8x8 pixels (UCI, by way of scikit-learn).

There is no official split by image. Ours: the images in scikit-learn's order are permuted once by
NumPy's PCG64 with seed 1797, without regard to class; the first 1,400 are train, the last 397 test.
The permutation is stored with the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_digits(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return pixels 0..16, shape (N, 1, 8, 8), and labels, shape (N,), of ``train`` or ``test``."""
    content = resources.files("deqcert.data").joinpath("digits.npz").read_bytes()
    with np.load(BytesIO(content), allow_pickle=False) as stored:
        train = int(stored["train"])
        order = stored["order"].astype(np.int64)
        rows = order[:train] if split == "train" else order[train:]
        return stored["pixels"][rows], stored["labels"][rows].astype(np.int64)


@dataclass(frozen=True)
class DigitsSource:
    """Reads the embedded digits, whatever the folder."""

    subfolders: tuple[str, ...] = ()

    def __call__(
        self, split: str, folder: str | PathLike[str] | None, download: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return pixels, shape (N, 1, 8, 8), and labels, shape (N,)."""
        del folder, download
        return read_digits(split)

    def found(self, split: str, root: Path) -> Path | None:
        """Return the package's own file."""
        del split, root
        return Path(__file__).with_name("digits.npz")
