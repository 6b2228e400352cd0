"""What the registry knows of a data set, and how it loads one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deqcert.data.arrays import ArrayDataset
from deqcert.data.dataset import Dataset

SPLITS = {"train": "train", "test": "test"}


class Reader(Protocol):
    """Finds and reads the original files of one data set."""

    @property
    def subfolders(self) -> tuple[str, ...]:
        """Where the files may lie, relative to the data folder, which comes last."""
        ...

    def __call__(
        self, split: str, folder: str | PathLike[str] | None, download: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return pixels, shape (N, C, H, W), and labels, shape (N,)."""
        ...

    def found(self, split: str, root: Path) -> Path | None:
        """Return the folder or archive that holds the whole split now, or None; reads nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A data set by name.

    Attributes:
        name: Name in the registry.
        licence: Licence and source, in a line.
        input_shape: (C, H, W) of the images that models get.
        sizes: Official number of images by split.
        digests: Known `Dataset.digest` by split.
        download: Size of the download, such as ``"12 MB"``; empty where there is none.
    """

    name: str
    licence: str
    input_shape: tuple[int, int, int]
    sizes: Mapping[str, int]
    digests: Mapping[str, str] = field(default_factory=dict)
    download: str = ""

    @property
    def splits(self) -> Mapping[str, str]:
        """Split by every name it goes by."""
        return SPLITS

    @property
    @abstractmethod
    def classes(self) -> str:
        """Number of classes, in words."""

    @property
    @abstractmethod
    def subfolders(self) -> tuple[str, ...]:
        """Where the files may lie, relative to the data folder, which comes last."""

    @abstractmethod
    def found(self, split: str, root: Path) -> Path | None:
        """Return the folder or archive that holds the whole split now, or None; reads nothing."""

    @abstractmethod
    def load(self, split: str, folder: str | PathLike[str] | None, download: bool) -> Dataset:
        """Return a split, ``train`` or ``test``.

        Raises:
            DataError: Files are missing, damaged, or not what they claim to be.
        """


@dataclass(frozen=True, kw_only=True)
class ArraySource(Source):
    """A data set small enough to lie in memory.

    Attributes:
        read: Reads the original files.
        levels: The byte that stands for 1.0.
        class_names: One name per class.
    """

    read: Reader
    levels: int
    class_names: tuple[str, ...]

    @property
    def classes(self) -> str:
        """Number of classes, in words."""
        return f"{len(self.class_names)} classes"

    @property
    def subfolders(self) -> tuple[str, ...]:
        """Where the files may lie, relative to the data folder, which comes last."""
        return self.read.subfolders

    def found(self, split: str, root: Path) -> Path | None:
        """Return the folder or archive that holds the whole split now, or None; reads nothing."""
        return self.read.found(split, root)

    def load(self, split: str, folder: str | PathLike[str] | None, download: bool) -> Dataset:
        """Return a split, ``train`` or ``test``."""
        pixels, labels = self.read(split, folder, download)
        return ArrayDataset(
            name=self.name,
            split=split,
            pixels=pixels,
            labels=labels,
            levels=self.levels,
            class_names=self.class_names,
            licence=self.licence,
        )
