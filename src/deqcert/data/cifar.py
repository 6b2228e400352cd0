"""CIFAR-10 from its binary files, its Python files, or either archive.

Whatever the container, a batch becomes the binary version's records (a label byte, then 1,024 red,
1,024 green and 1,024 blue bytes), and the checksum is taken over those: one for every form.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deqcert.data.files import Remote, fetch, find, missing, read_bytes, require_sha256, root_folder
from deqcert.data.safe_pickle import read_table
from deqcert.errors import DataError

SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
BINARY_FOLDER, PYTHON_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"
BINARY_ARCHIVE, PYTHON_ARCHIVE = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"


@dataclass(frozen=True, kw_only=True)
class CifarSource:
    """A data set in CIFAR-10's forms.

    Attributes:
        name: Name in the registry, and subfolder for downloads.
        batches: Names of the batches of each split, in order.
        checksums: SHA-256 of each batch's records; a batch without one is not checked.
        archive: The binary archive, or None where it cannot be downloaded.
    """

    name: str
    batches: Mapping[str, tuple[str, ...]]
    checksums: Mapping[str, str]
    archive: Remote | None

    def __call__(
        self, split: str, folder: str | PathLike[str] | None, download: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return pixels, shape (N, 3, 32, 32), and labels, shape (N,)."""
        root = root_folder(folder)
        names = self.batches[split]
        found = self._in_folders(names, root) or self._in_archive(names, root, download)
        batches = [self._checked(name, content, what) for name, content, what in found]
        records = np.concatenate(batches)
        return records[:, 1:].reshape(-1, *SHAPE), records[:, 0].astype(np.int64)

    @property
    def subfolders(self) -> tuple[str, ...]:
        """Where the batches may lie, relative to the data folder, which comes last."""
        forms = (BINARY_FOLDER, PYTHON_FOLDER)
        return (*forms, *(f"{self.name}/{form}" for form in forms), self.name)

    def found(self, split: str, root: Path) -> Path | None:
        """Return the folder of all batches of a split, else the archive, or None."""
        paths = [self._find(name, root) for name in self.batches[split]]
        if paths[0] is None:
            return find(root, (BINARY_ARCHIVE, PYTHON_ARCHIVE), (self.name,))
        return paths[0].parent if None not in paths else None

    def _in_folders(
        self, names: tuple[str, ...], root: Path
    ) -> list[tuple[str, NDArray[np.uint8], str]]:
        """Return the batches as unpacked files, or nothing where the first is not there."""
        if self._find(names[0], root) is None:
            return []
        found = []
        for name in names:
            path = self._find(name, root)
            if path is None:
                raise missing(self.name, (name + ".bin", name), root, self.subfolders)
            found.append((name, _to_records(path.name, read_bytes(path), str(path)), str(path)))
        return found

    def _find(self, name: str, root: Path) -> Path | None:
        return find(root, (name + ".bin", name), self.subfolders)

    def _in_archive(
        self, names: tuple[str, ...], root: Path, download: bool
    ) -> list[tuple[str, NDArray[np.uint8], str]]:
        """Return the batches inside an archive, downloaded if need be."""
        archives = (BINARY_ARCHIVE, PYTHON_ARCHIVE)
        path = find(root, archives, (self.name,))
        if path is None:
            if not download or self.archive is None:
                raise missing(self.name, (BINARY_FOLDER, *archives), root, (self.name,))
            path = fetch(self.archive, root / self.name)
        found = {
            Path(member).stem: _to_records(member, content, f"{path}:{member}")
            for member, content in _members(path, names)
        }
        for name in names:
            if name not in found:
                raise DataError(f"{path} has no {name}; delete it and download it again")
        return [(name, found[name], f"{path}:{name}") for name in names]

    def _checked(self, name: str, records: NDArray[np.uint8], what: str) -> NDArray[np.uint8]:
        """Return `records` once their checksum is right."""
        require_sha256(np.ascontiguousarray(records).data, self.checksums.get(name), what=what)
        return records


def _members(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield file name and content of the wanted batches in an archive; nothing is unpacked."""
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = Path(member.name)
                stream = archive.extractfile(member) if name.stem in names else None
                if stream is not None:
                    yield name.name, stream.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path} is truncated or not an archive ({error}); delete it and download it again"
        ) from error


def _to_records(name: str, content: bytes, what: str) -> NDArray[np.uint8]:
    """Return a batch as binary records, shape (N, 3073), from either form of file."""
    if name.endswith(".bin"):
        return parse_binary(content, what=what)
    return parse_python(content, what=what)


def parse_binary(content: bytes, *, what: str) -> NDArray[np.uint8]:
    """Return the records of a binary batch, shape (N, 3073).

    Raises:
        DataError: Not a whole number of records.
    """
    if not content or len(content) % RECORD:
        raise DataError(
            f"{what} is truncated: {len(content)} bytes are not a whole number of records of "
            f"{RECORD}; delete it and download it again"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD)


def parse_python(content: bytes, *, what: str) -> NDArray[np.uint8]:
    """Return the records of a pickled batch, shape (N, 3073), without running anything in it.

    Raises:
        DataError: Not such a pickle, or images and labels that do not fit.
    """
    table = read_table(content, what=what)
    data, labels = table.get("data"), table.get("labels")
    wrong = DataError(f"{what} holds no images with labels; delete it and download it again")
    if not isinstance(data, np.ndarray) or not isinstance(labels, list):
        raise wrong
    if data.shape != (len(labels), RECORD - 1) or not _are_bytes(labels):
        raise wrong
    return np.concatenate([np.asarray(labels, dtype=np.uint8)[:, None], data], axis=1)


def _are_bytes(labels: list[object]) -> bool:
    return all(isinstance(label, int) and 0 <= label <= 255 for label in labels)
