"""What a data set is, wherever its images lie: float32 images in [0, 1], in a fixed order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deqcert.data.image import Box
from deqcert.errors import ConfigurationError, DataError

ChooseBox = Callable[[int, int, int], Box]
"""Says which window of an image to take, given its index, and its width and height in pixels."""


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


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Dataset(ABC):
    """A split of a named data set; ``data[i]`` is an `Example`.

    `ArrayDataset` holds its images in memory, `FolderDataset` decodes image files when asked.

    Attributes:
        name: Name in the registry, for example ``"digits"``.
        split: ``"train"`` or ``"test"``.
        labels: int64 classes. shape: (N,)
        class_names: One name per class.
        licence: Licence and source, in a line.

    Raises:
        DataError: Labels outside 0..num_classes - 1, or content that does not fit together.
    """

    name: str
    split: str
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    licence: str

    keeps_originals: ClassVar[bool] = False
    """Whether the images lie somewhere larger than `input_shape`, so that `crops` can be cut."""

    def __post_init__(self) -> None:
        require_range(f"{self.name}: label", self.labels, self.num_classes - 1)

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one image, (C, H, W)."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) that names the content: other images or labels, another digest."""
        return self.compute_digest()

    @abstractmethod
    def compute_digest(self) -> str:
        """Return the digest; `digest` remembers it."""

    @abstractmethod
    def images(self, rows: NDArray[np.int64]) -> Tensor:  # rows: (B,)
        """Return the float32 images in [0, 1] at `rows`, shape (B, C, H, W)."""

    def crops(
        self,
        rows: NDArray[np.int64],  # (B,)
        choose: ChooseBox,
    ) -> Tensor:  # (B, C, H, W)
        """Return windows of the original images at `rows`, resized to `input_shape`; in [0, 1].

        Raises:
            ConfigurationError: The data set keeps no originals.
        """
        del rows, choose
        raise self.without_originals()

    def without_originals(self) -> ConfigurationError:
        """Return the error for resized crops of a data set that keeps no originals."""
        _, height, width = self.input_shape
        return ConfigurationError(
            f"resized crops are cut from larger originals, but {self.name} keeps {width} x "
            f"{height} pixels alone; use crop, the margin of plain crops, instead of resized_crop"
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        position = range(len(self))[
            index
        ]  # accepts negative indices, raises IndexError like a list
        image = self.images(np.array([position], dtype=np.int64))[0]
        return Example(position, image, int(self.labels[position]))

    def batch(
        self,
        indices: Sequence[int] | NDArray[np.integer] | Tensor,
        *,
        choose: ChooseBox | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the images and labels at `indices`, in that order.

        Args:
            indices: Positions in the split.
            choose: Which windows of the original images to take, see `crops`; None means the
                images themselves.

        Returns:
            float32 images in [0, 1], shape (B, C, H, W), and int64 labels, shape (B,).

        Raises:
            ConfigurationError: Windows of a data set that keeps no originals.
        """
        rows = np.asarray(indices, dtype=np.int64)
        images = self.images(rows) if choose is None else self.crops(rows, choose)
        return images, torch.from_numpy(self.labels[rows])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind} {self.name} {self.split}: {len(self)} images of shape {self.input_shape}>"


def require_range(what: str, values: NDArray[np.integer], largest: int) -> None:
    """Raise DataError unless all values lie in 0..largest."""
    if values.size and (values.min() < 0 or values.max() > largest):
        bad = int(values.max()) if values.max() > largest else int(values.min())
        raise DataError(f"{what} values must lie in 0..{largest}, but got {bad}; replace the file")


def check_dataset(data: object) -> None:
    """Raise ConfigurationError unless `data` is a data set, and not its name."""
    if not isinstance(data, Dataset):
        raise ConfigurationError(
            f"data must be a Dataset, such as load_data gives, but got a {type(data).__name__}"
        )
