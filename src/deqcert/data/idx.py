"""MNIST and Fashion-MNIST from their original IDX files, gzipped or not.

Format (LeCun, Cortes, Burges): two zero bytes, a type byte (8: unsigned byte), the number of
dimensions, each dimension as a big-endian 32-bit integer, then the values.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deqcert.data.files import Remote, fetch, find, missing, read_bytes, require_sha256, root_folder
from deqcert.errors import DataError

UNSIGNED_BYTE = 8
STEMS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True, kw_only=True)
class Checksums:
    """SHA-256 of a file as published (gzip) and of what is inside."""

    gz: str
    content: str


@dataclass(frozen=True, kw_only=True)
class IdxSource:
    """A data set in four IDX files named like MNIST's.

    Attributes:
        name: Name in the registry, and subfolder for downloads.
        subfolders: Subfolders in which the files may be as well.
        checksums: By file stem; a stem without an entry is neither checked nor downloaded.
        urls: Folders that serve the files.
    """

    name: str
    subfolders: tuple[str, ...]
    checksums: Mapping[str, Checksums]
    urls: tuple[str, ...]

    def __call__(
        self, split: str, folder: str | PathLike[str] | None, download: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return pixels, shape (N, 1, H, W), and labels, shape (N,)."""
        root = root_folder(folder)
        images_path, labels_path = (self._locate(stem, root, download) for stem in STEMS[split])
        images = self._parse(images_path, STEMS[split][0], dimensions=3)
        labels = self._parse(labels_path, STEMS[split][1], dimensions=1)
        return images[:, None], labels.astype(np.int64)

    def found(self, split: str, root: Path) -> Path | None:
        """Return the folder that holds both files of a split now, or None."""
        paths = [find(root, (stem + ".gz", stem), self.subfolders) for stem in STEMS[split]]
        return paths[0].parent if paths[0] is not None and paths[1] is not None else None

    def _locate(self, stem: str, root: Path, download: bool) -> Path:
        """Return the path of a file, downloaded if need be."""
        names = (stem + ".gz", stem)
        path = find(root, names, self.subfolders)
        if path is not None:
            return path
        if not download or stem not in self.checksums:
            raise missing(self.name, names, root, self.subfolders)
        remote = Remote(
            name=stem + ".gz", known_hash=f"sha256:{self.checksums[stem].gz}", urls=self.urls
        )
        return fetch(remote, root / self.name)

    def _parse(self, path: Path, stem: str, *, dimensions: int) -> NDArray[np.uint8]:
        """Return the array in the file, its structure checked before its checksum.

        In that order a truncated or foreign file is named for what it is.
        """
        content = read_content(path)
        array = parse_idx(content, dimensions=dimensions, what=str(path))
        expected = self.checksums.get(stem)
        require_sha256(content, expected.content if expected else None, what=str(path))
        return array


def read_content(path: Path) -> bytes:
    """Return the bytes of a file, unzipped if its name ends in ``.gz``.

    Raises:
        DataError: Unreadable, truncated, or not gzip.
    """
    content = read_bytes(path)
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path} is truncated or not gzip ({error}); delete it and download it again"
        ) from error


def parse_idx(content: bytes, *, dimensions: int, what: str) -> NDArray[np.uint8]:
    """Return the array of unsigned bytes in `content`; `what` names it in errors.

    Raises:
        DataError: Wrong magic number, or a length that does not match the header.
    """
    header = 4 + 4 * dimensions
    expected = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if content[:4] != expected:
        raise DataError(
            f"{what} is not an IDX file of {dimensions} dimensions: starts with "
            f"{content[:4].hex() or 'nothing'}, expected {expected.hex()}; replace it"
        )
    sizes = [content[start : start + 4] for start in range(4, header, 4)]
    shape = tuple(int.from_bytes(size, "big") for size in sizes)
    size = header + math.prod(shape)
    if len(content) != size:
        raise DataError(
            f"{what} is truncated or padded: {len(content)} bytes, but its header says {size}; "
            "delete it and download it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
