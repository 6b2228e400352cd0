"""A data set of image files: nothing in memory but their names, decoded when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deqcert.data.dataset import ChooseBox, Dataset
from deqcert.data.image import read_crop, read_window
from deqcert.errors import DataError


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class FolderDataset(Dataset):
    """A split whose images are files, decoded, resized and cropped at every access.

    ImageNet's training images would fill 193 GB as bytes; their names take about 0.1 GB.

    Attributes:
        root: Folder of the files.
        files: Path of each image below `root`, with forward slashes.
        resize: Pixels of the short side after resizing.
        crop: Pixels of the square cut from the centre, at most `resize`.
        workers: Threads that decode a batch, >= 1; Pillow decodes outside the interpreter lock.
    """

    root: Path
    files: tuple[str, ...]
    resize: int = 256
    crop: int = 224
    workers: int = 1

    keeps_originals: ClassVar[bool] = True

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one image after cropping, (3, H, W)."""
        return 3, self.crop, self.crop

    def images(self, rows: NDArray[np.int64]) -> Tensor:  # rows: (B,)
        """Return the images at `rows`, shape (B, 3, H, W).

        Raises:
            DataError: A file is missing, damaged or no image; it names the first such file.
        """
        return self._decoded(
            rows, lambda row: read_crop(self._path(row), resize=self.resize, crop=self.crop)
        )

    def crops(
        self,
        rows: NDArray[np.int64],  # (B,)
        choose: ChooseBox,
    ) -> Tensor:  # (B, 3, H, W)
        """Return windows of the files' own pixels at `rows`, resized to `input_shape`.

        Raises:
            DataError: As `images`.
        """
        return self._decoded(
            rows,
            lambda row: read_window(
                self._path(row),
                choose=lambda width, height: choose(row, width, height),
                size=self.input_shape[1:],
            ),
        )

    def _path(self, row: int) -> Path:
        return self.root / self.files[row]

    def _decoded(
        self,
        rows: NDArray[np.int64],  # (B,)
        read: Callable[[int], NDArray[np.uint8]],  # row -> (3, H, W)
    ) -> Tensor:  # (B, 3, H, W)
        found = np.empty((len(rows), *self.input_shape), dtype=np.float32)

        def decode(place: int) -> None:
            np.divide(read(int(rows[place])), np.float32(255), out=found[place])

        workers = min(self.workers, len(rows))
        if workers <= 1:
            for place in range(len(rows)):
                decode(place)
        else:
            # A pool per batch starts in well under a millisecond, and leaves nothing to pickle.
            with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
                for _ in pool.map(decode, range(len(rows))):
                    pass
        return torch.from_numpy(found)

    def compute_digest(self) -> str:
        """Return the SHA-256 (hex) over preprocessing, and path, size and label of each file.

        Not over the files' content: reading 150 GB before the first image would take an hour. It
        tells apart another selection, order, labelling or recompression, but not two files of
        equal name and equal size.

        Raises:
            DataError: A file has gone since the folder was listed.
        """
        header = f"resize {self.resize} crop {self.crop} {len(self)} {self.num_classes}\n"
        state = hashlib.sha256(header.encode())
        for file, label in zip(self.files, self.labels, strict=True):
            try:
                size = (self.root / file).stat().st_size
            except OSError as error:
                reason = error.strerror or error
                raise DataError(f"cannot read {self.root / file}: {reason}") from error
            state.update(f"{file}\0{size}\0{label}\n".encode("utf-8", "surrogateescape"))
        return state.hexdigest()
