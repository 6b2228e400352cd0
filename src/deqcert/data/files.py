"""Finding, checking and downloading original data files."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from deqcert.errors import DataError

ENVIRONMENT_VARIABLE = "DEQCERT_DATA"


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file that can be downloaded.

    Attributes:
        name: File name.
        known_hash: Published checksum as ``sha256:HEX`` or ``md5:HEX``.
        urls: Folders that serve it, with their trailing slash, tried in order.
    """

    name: str
    known_hash: str
    urls: tuple[str, ...]


def root_folder(folder: str | PathLike[str] | None) -> Path:
    """Return where data files live: `folder`, else ``$DEQCERT_DATA``, else the user's cache."""
    if folder is not None:
        return Path(folder).expanduser()
    if os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(os.environ[ENVIRONMENT_VARIABLE]).expanduser()
    import pooch

    return Path(pooch.os_cache("deqcert"))


def find(root: Path, names: Sequence[str], subfolders: Iterable[str]) -> Path | None:
    """Return the first existing file of `names` in the `subfolders` of `root` or in it, or None.

    Subfolders come first: data sets that share file names may lie side by side.
    """
    places = [*(root / subfolder for subfolder in subfolders), root]
    candidates = (place / name for place in places for name in names)
    return next((path for path in candidates if path.is_file()), None)


def read_bytes(path: Path) -> bytes:
    """Return the content of `path`.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def require_sha256(content: bytes | memoryview, expected: str | None, *, what: str) -> None:
    """Raise DataError unless `content` has the checksum; None asks for no check."""
    if expected is None:
        return
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(
            f"{what} is not the original: SHA-256 {found[:12]}..., expected {expected[:12]}...; "
            "delete it and download it again"
        )


def fetch(remote: Remote, folder: Path) -> Path:
    """Download `remote` into `folder` and return its path; the checksum is checked first.

    Raises:
        DataError: No server gave the file with its checksum, or it cannot be stored.
    """
    import pooch

    reasons = []
    absent = [place for place in (folder, *folder.parents) if not place.exists()]
    for url in remote.urls:
        try:
            return Path(
                pooch.retrieve(
                    url + remote.name,
                    known_hash=remote.known_hash,
                    fname=remote.name,
                    path=folder,
                )
            )
        except (OSError, ValueError) as error:  # requests' errors are OSErrors, bad hashes are not
            reasons.append(f"{url}: {_brief(error)}")
    with contextlib.suppress(OSError):  # the folder's name may have been mistyped
        for place in absent:  # pooch has made them
            place.rmdir()
    raise DataError(
        f"could not download {remote.name} to {folder} ({'; '.join(reasons)}); download it by hand "
        f"and give its folder (--data-dir, folder=, or {ENVIRONMENT_VARIABLE})"
    )


def missing(what: str, names: Sequence[str], root: Path, subfolders: Iterable[str]) -> DataError:
    """Return the error for files that are nowhere and may not be downloaded."""
    places = ", ".join(f"{root / subfolder}" for subfolder in subfolders)
    return DataError(
        f"{what}: no {' or '.join(names)} in {root} or {places}; put it there, give another "
        f"folder (--data-dir, folder=, or {ENVIRONMENT_VARIABLE}) or allow the download"
    )


def _brief(error: Exception) -> str:
    """The reason in an error, short enough to stand in a sentence."""
    import requests  # pooch's own dependency

    if isinstance(error, requests.ConnectionError):
        return "no connection"
    lines = str(error).splitlines() or [""]
    text = lines[0] or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
