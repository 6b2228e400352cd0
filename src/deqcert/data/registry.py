"""The data sets by name, and `load_data`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from deqcert.data.dataset import Dataset
from deqcert.data.digits import read_digits
from deqcert.errors import unknown_name

Reader = Callable[
    [str, "str | PathLike[str] | None", bool], "tuple[NDArray[np.uint8], NDArray[np.int64]]"
]

SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the registry knows of a data set.

    Attributes:
        read: ``read(split, folder, download)`` gives pixels (N, C, H, W) and labels (N,).
        levels: The byte that stands for 1.0.
        class_names: One name per class.
        licence: Licence and source, in a line.
    """

    read: Reader
    levels: int
    class_names: tuple[str, ...]
    licence: str


DIGIT_NAMES = tuple("0123456789")

SOURCES: dict[str, Source] = {
    "digits": Source(
        read=lambda split, folder, download: read_digits(split),
        levels=16,
        class_names=DIGIT_NAMES,
        licence="CC BY 4.0; Alpaydin and Kaynak 1998, UCI Machine Learning Repository",
    ),
}


def load_data(
    name: str,
    *,
    split: str = "test",
    folder: str | PathLike[str] | None = None,
    download: bool = True,
) -> Dataset:
    """Load a split of a data set; images leave it as float32 in [0, 1].

    Args:
        name: ``digits``, ``mnist``, ``fashion-mnist`` or ``cifar10``.
        split: ``train`` or ``test``.
        folder: Where the original files are, or are downloaded to: default the environment variable
            ``DEQCERT_DATA``, else the user's cache folder. Digits need none.
        download: Whether missing files may be downloaded.

    Raises:
        UnknownNameError: No such data set or split.
        DataError: Files are missing, damaged, or not what they claim to be.
    """
    if name not in SOURCES:
        raise unknown_name("data set", name, SOURCES)
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    source = SOURCES[name]
    pixels, labels = source.read(split, folder, download)
    return Dataset(
        name=name,
        split=split,
        pixels=pixels,
        labels=labels,
        levels=source.levels,
        class_names=source.class_names,
        licence=source.licence,
    )
