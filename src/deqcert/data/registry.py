"""`load_data`: a data set by its name."""

from __future__ import annotations

from os import PathLike

from deqcert.data.dataset import Dataset
from deqcert.data.sources import SOURCES
from deqcert.errors import unknown_name

SPLITS = ("train", "test")


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
