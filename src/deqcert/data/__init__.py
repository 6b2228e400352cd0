"""Data sets by name, read from their original files; images leave in [0, 1]."""

from __future__ import annotations

from deqcert.data.arrays import ArrayDataset
from deqcert.data.dataset import ChooseBox, Dataset, Example
from deqcert.data.folder import FolderDataset
from deqcert.data.image import Box, read_image
from deqcert.data.prefetch import prefetched
from deqcert.data.registry import load_data
from deqcert.data.sources import SOURCES

__all__ = [
    "SOURCES",
    "ArrayDataset",
    "Box",
    "ChooseBox",
    "Dataset",
    "Example",
    "FolderDataset",
    "load_data",
    "prefetched",
    "read_image",
]
