"""Data sets by name, read from their original files; images leave in [0, 1]."""

from __future__ import annotations

from deqcert.data.dataset import Dataset, Example
from deqcert.data.image import read_image
from deqcert.data.registry import load_data
from deqcert.data.sources import SOURCES

__all__ = ["SOURCES", "Dataset", "Example", "load_data", "read_image"]
