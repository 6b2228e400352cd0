"""What data sets there are, and which of them lie here: the rows of ``deqcert data``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from deqcert.data.files import ENVIRONMENT_VARIABLE, root_folder
from deqcert.data.imagenet import FolderSource
from deqcert.data.source import Source
from deqcert.data.sources import SOURCES

DIGEST_LETTERS = 12


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A data set in words, a line each.

    Attributes:
        name: Name in the registry.
        images: Size and colour of the images, classes, official number of images per split.
        here: Where its splits lie, relative to the data folder, or where they are looked for.
        licence: Licence and source.
        digest: Start of the known `Dataset.digest` of each split, as run folders record it.
    """

    name: str
    images: str
    here: str
    licence: str
    digest: str


def list_data_sets(folder: str | PathLike[str] | None = None) -> list[Listed]:
    """Describe every data set; only folders are looked at, no image is read.

    Args:
        folder: As in `load_data`.
    """
    root = root_folder(folder)
    return [
        Listed(
            name=name,
            images=_images(source),
            here=_here(source, root),
            licence=source.licence,
            digest=_digest(source),
        )
        for name, source in SOURCES.items()
    ]


def where_it_looks(folder: str | PathLike[str] | None = None) -> str:
    """Say in a line which folder is the data folder, and by what rule."""
    root = root_folder(folder)
    if folder is not None:
        return f"data folder: {root} (as given)"
    if os.environ.get(ENVIRONMENT_VARIABLE):
        return f"data folder: {root} (from {ENVIRONMENT_VARIABLE}; --data-dir goes first)"
    return f"data folder: {root} (the default; --data-dir and {ENVIRONMENT_VARIABLE} go first)"


def _images(source: Source) -> str:
    channels, height, width = source.input_shape
    kind = f"{height}x{width} {'grey' if channels == 1 else 'colour'}, {source.classes}"
    if isinstance(source, FolderSource):
        kind += " (short side to 256, then the centre)"
    sizes = ", ".join(f"{size:,} {split}" for split, size in source.sizes.items())
    return f"{kind}: {sizes}"


def _here(source: Source, root: Path) -> str:
    if not source.subfolders:
        return "part of deqcert"
    found = {split: source.found(split, root) for split in source.sizes}
    parts = [f"{split} in {_relative(path, root)}" for split, path in found.items() if path]
    absent = [split for split, path in found.items() if path is None]
    if absent:
        places = ", ".join(f"{place}/" for place in source.subfolders)
        what = f"no {absent[0]}" if parts else "no"
        remedy = (
            f"{source.download} to download" if source.download else "cannot be downloaded here"
        )
        parts.append(f"{what}, {remedy}; looked in {places} and the folder itself")
    return ", ".join(parts)


def _relative(path: Path, root: Path) -> str:
    inside = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    if path.is_file():
        return inside
    return "the folder itself" if inside == "." else f"{inside}/"


def _digest(source: Source) -> str:
    known = [f"{split} {digest[:DIGEST_LETTERS]}" for split, digest in source.digests.items()]
    return ", ".join(known) or "of names, sizes and labels of the files, when loaded"
