"""ImageNet from the usual folder of class folders, with the standard 256/224 preprocessing.

    FOLDER/train/n01440764/*.JPEG ...     training images
    FOLDER/val/n01440764/*.JPEG ...       validation images, which serve as ``test``
    FOLDER/classes.txt                    optional: which classes there are, and in which order

A folder of class folders may also be given itself; one named ``train`` is the training split, any
other the test split. Classes are numbered in sorted order of their folders' names (WordNet ids),
which for all 1,000 is the numbering that published models use. For a selection of the classes, a
list fixes the number and order: ``classes.txt`` in the folder of class folders or beside it, one
id per line with an optional name after it. ``LOC_synset_mapping.txt`` of the Kaggle download is
such a list and is read as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from deqcert.data.files import ENVIRONMENT_VARIABLE, root_folder
from deqcert.data.folder import FolderDataset
from deqcert.data.source import Source
from deqcert.errors import DataError

WORDNET_ID = re.compile(r"n\d{8}")
LISTS = ("classes.txt", "LOC_synset_mapping.txt")
EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp", ".bmp")
FOLDERS = {"train": "train", "test": "val"}


@dataclass(frozen=True, kw_only=True)
class FolderSource(Source):
    """A data set in class folders.

    Attributes:
        places: Subfolders of the data folder in which it may lie; the folder itself comes last.
    """

    input_shape: tuple[int, int, int] = (3, 224, 224)
    places: tuple[str, ...]

    @property
    def subfolders(self) -> tuple[str, ...]:
        """Where the split folders may lie, relative to the data folder, which comes last."""
        return self.places

    @property
    def splits(self) -> Mapping[str, str]:
        """``val`` is another name of ``test``: only the validation images have public labels."""
        return {"train": "train", "test": "test", "val": "test"}

    @property
    def classes(self) -> str:
        """Number of classes, in words."""
        return "1,000 classes"

    def found(self, split: str, root: Path) -> Path | None:
        """Return the folder of the split's class folders, or None."""
        for place in (*(root / subfolder for subfolder in self.subfolders), root):
            inside = place / FOLDERS[split]
            if inside.is_dir():
                return inside
            if (split == "train") == (place.name == "train") and _holds_classes(place):
                return place
        return None

    def load(self, split: str, folder: str | PathLike[str] | None, download: bool) -> FolderDataset:
        """Return a split, ``train`` or ``test``.

        Raises:
            DataError: No such split, a class without images, an unknown class folder, classes
                missing from one split, or an unreadable class list.
        """
        del download  # the terms of ImageNet do not allow it
        root = root_folder(folder)
        place = self.found(split, root)
        if place is None:
            raise _missing(self.name, split, root, self.subfolders)
        classes = read_classes(place)
        files, labels = list_files(place, tuple(classes))
        return FolderDataset(
            name=self.name,
            split=split,
            labels=labels,
            class_names=tuple(classes.values()),
            licence=self.licence,
            root=place,
            files=files,
            crop=self.input_shape[1],
            workers=torch.get_num_threads(),
        )


def read_classes(
    place: Path,  # folder of class folders
) -> dict[str, str]:
    """Return name by class id, in the order of the classes.

    Raises:
        DataError: No class folder, one that is in no list and has no WordNet id, or one that only
            the other split has while no list says which is right.
    """
    found = _class_folders(place)
    if not found:
        raise DataError(f"{place} has no class folders, such as {place / 'n01440764'}")
    path = _find_list(place)
    if path is not None:
        known, rule = _read_list(path), f"it is not listed in {path}"
    else:
        known = {name: name for name in found if WORDNET_ID.fullmatch(name)}
        rule = f"expected WordNet ids such as n01440764, or a {LISTS[0]} with other names"
        _require_equal_classes(place, found)
    foreign = [name for name in found if name not in known]
    if foreign:
        raise DataError(f"{place} has a folder {foreign[0]!r} that is no class: {rule}")
    return known


def list_files(
    place: Path,  # folder of class folders
    classes: tuple[str, ...],  # in their order; those without a folder have no images
) -> tuple[tuple[str, ...], np.ndarray]:  # (N,) int64
    """Return the image files below `place` by class and name, and their labels.

    Raises:
        DataError: A class folder without images, or one that cannot be read.
    """
    present = set(_class_folders(place))
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if name not in present:
            continue
        images = _images(place / name)
        if not images:
            raise DataError(
                f"class folder {place / name} has no images ({', '.join(EXTENSIONS)}); "
                "complete or remove it"
            )
        files += [f"{name}/{image}" for image in images]
        labels += [label] * len(images)
    return tuple(files), np.array(labels, dtype=np.int64)


def _holds_classes(place: Path) -> bool:
    """Whether a folder is one of class folders: some are listed, or have WordNet ids."""
    if not place.is_dir():
        return False
    found = _class_folders(place)
    if any(WORDNET_ID.fullmatch(name) for name in found):
        return True
    path = _find_list(place)
    try:
        return path is not None and not set(found).isdisjoint(_read_list(path))
    except DataError:  # a file of that name beside a data folder may be anything
        return False


def _require_equal_classes(place: Path, found: list[str]) -> None:
    """Raise DataError if the other split has other classes: the same number would mean two."""
    other = place.parent / {"train": "val", "val": "train"}.get(place.name, "")
    there = _class_folders(other) if other != place.parent and other.is_dir() else []
    for lacking, missing in ((place, set(there) - set(found)), (other, set(found) - set(there))):
        if there and missing:
            raise DataError(
                f"{lacking} lacks {len(missing)} of the classes beside it, such as {min(missing)}; "
                f"complete it, or list all classes in {place.parent / LISTS[0]}"
            )


def _find_list(place: Path) -> Path | None:
    """Return the class list in `place` or beside it, if there is one."""
    paths = (folder / name for folder in (place, place.parent) for name in LISTS)
    return next((path for path in paths if path.is_file()), None)


def _read_list(path: Path) -> dict[str, str]:
    """Return name by class id, in the order of the list."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    names: dict[str, str] = {}
    for line in filter(str.strip, lines):
        key, _, name = line.strip().partition(" ")
        if key in names:
            raise DataError(f"{path} lists {key} twice")
        names[key] = name.strip() or key
    if not names:
        raise DataError(f"{path} is empty; list one class folder per line, or remove it")
    return names


def _class_folders(place: Path) -> list[str]:
    """Names of the visible folders in `place`, sorted."""
    return _entries(place, folders=True)


def _images(place: Path) -> list[str]:
    """Names of the visible image files in `place`, sorted."""
    names = _entries(place, folders=False)
    return [name for name in names if name.lower().endswith(EXTENSIONS)]


def _entries(place: Path, *, folders: bool) -> list[str]:
    try:
        with os.scandir(place) as entries:
            kept = (entry for entry in entries if not entry.name.startswith("."))
            return sorted(e.name for e in kept if (e.is_dir() if folders else e.is_file()))
    except OSError as error:
        raise DataError(f"cannot read {place}: {error.strerror or error}") from error


def _missing(name: str, split: str, root: Path, subfolders: tuple[str, ...]) -> DataError:
    """Return the error for a split that is nowhere."""
    places = ", ".join(str(root / subfolder) for subfolder in subfolders)
    return DataError(
        f"{name}: no folder {FOLDERS[split]!r} of class folders in {root} or {places}; it cannot "
        f"be downloaded here: get it from image-net.org and give its folder (--data-dir, folder=, "
        f"or {ENVIRONMENT_VARIABLE})"
    )
