"""`load_data`: a data set by its name."""

from __future__ import annotations

from os import PathLike

from deqcert.data.dataset import Dataset
from deqcert.data.sources import SOURCES
from deqcert.errors import unknown_name


def load_data(
    name: str,
    *,
    split: str = "test",
    folder: str | PathLike[str] | None = None,
    download: bool = True,
) -> Dataset:
    """Load a split of a data set; images leave it as float32 in [0, 1].

    Args:
        name: ``digits``, ``mnist``, ``fashion-mnist``, ``cifar10`` or ``imagenet``.
        split: ``train`` or ``test``. For ImageNet ``test`` and ``val`` both mean the validation
            images, since the labels of its test images are not public.
        folder: Where the original files are, or are downloaded to: default the environment variable
            ``DEQCERT_DATA``, else the user's cache folder. Digits need none; ImageNet
            cannot be downloaded.
        download: Whether missing files may be downloaded.

    Raises:
        UnknownNameError: No such data set or split.
        DataError: Files are missing, damaged, or not what they claim to be.
    """
    if name not in SOURCES:
        raise unknown_name("data set", name, SOURCES)
    source = SOURCES[name]
    if split not in source.splits:
        raise unknown_name("split", split, source.splits)
    return source.load(source.splits[split], folder, download)
