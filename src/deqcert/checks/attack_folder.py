"""Where an attack is written: settings in ``attack.json``, one line per image, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from deqcert.checks.judge import ABSTAINED, FELL, HELD
from deqcert.errors import RunFolderError
from deqcert.results.configuration import as_json, require_same
from deqcert.results.files import LOCK, LineFile, cannot_write, lock_folder, write_atomically

HEADER, LINES = "attack.json", "attack.jsonl"
# What an attack killed before its header was in place may leave behind.
_LEFTOVERS = {LOCK, HEADER + ".tmp"}
_NUMBERS = (int, float)


class AttackFolder:
    """The results of an attack on disk, written by one process at a time; use it in a ``with``.

    Attributes:
        path: The folder.
        seed: Seed of all noise of this attack.
        lines: One table per image attacked, in order.
    """

    def __init__(self, path: Path, seed: int, lock: FileLock) -> None:
        self.path = path
        self.seed = seed
        self.lines, end = _read(path / LINES)
        self._file = LineFile(path / LINES, end=end)
        self._lock = lock

    @classmethod
    def create_or_resume(
        cls,
        path: Path,
        header: Mapping[str, Any],
        seed: int | None,
        fresh: Callable[[], int],
    ) -> AttackFolder:
        """Open the folder to write, new or where it stopped.

        Args:
            path: The folder: missing, or an attack with the same settings.
            header: Settings, as JSON types.
            seed: Seed of the noise; None takes the folder's, or one from `fresh`.
            fresh: Gives a seed for a new folder.

        Raises:
            RunFolderError: An attack with other settings, in use by another process, damaged,
                something else, or a disk that refuses.
        """
        wanted = as_json("attack", header)
        try:
            path.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in path.iterdir()}
        except OSError as error:
            raise cannot_write(path, error) from error
        if HEADER not in names and names - _LEFTOVERS:
            raise RunFolderError(f"{path} is not empty and holds no attack; choose another folder")
        lock = lock_folder(path)
        try:
            return cls(path, _start(path, wanted, seed, fresh), lock)
        except BaseException:
            lock.release()
            raise

    @property
    def done(self) -> set[int]:
        """Indices of the images that have been attacked."""
        return {line["index"] for line in self.lines}

    def append(self, line: dict[str, Any]) -> None:
        """Write one image; it is on disk when this returns."""
        self._file.append(json.dumps(line, allow_nan=False, separators=(",", ":")))
        self.lines.append(line)

    def __enter__(self) -> AttackFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._lock.release()


def _start(path: Path, wanted: dict[str, Any], seed: int | None, fresh: Callable[[], int]) -> int:
    """Return the seed of the attack, begun now or there already with the same settings."""
    file = path / HEADER
    if not file.exists():
        stored = {**wanted, "seed": fresh() if seed is None else seed}
        write_atomically(file, json.dumps(stored, indent=2) + "\n")
        return stored["seed"]
    try:
        stored = json.loads(file.read_bytes())
        if not isinstance(stored, dict) or type(stored.get("seed")) is not int:
            raise ValueError("it is no table with a seed")
    except OSError as error:
        raise RunFolderError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise RunFolderError(f"{file} is damaged: {error}") from error
    wanted = {**wanted, "seed": stored["seed"] if seed is None else seed}
    require_same(path, stored=stored, wanted=wanted)
    return stored["seed"]


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the whole lines and their length in bytes; a torn last line is left out."""
    lines: dict[int, dict[str, Any]] = {}
    end = 0
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror or error}") from error
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            found = _checked(json.loads(line))
            if found["index"] in lines:
                raise ValueError(f"it is a second one of image {found['index']}")
        except ValueError as error:
            raise RunFolderError(f"{path}, line {number}, is damaged: {error}") from error
        lines[found["index"]] = found
        end += len(line)
    return list(lines.values()), end


def _checked(line: Any) -> dict[str, Any]:
    """Return one image's table if it has what a result is made from.

    Raises:
        ValueError: It has not.
    """
    whole = isinstance(line, dict) and type(line.get("index")) is int
    outcomes = line.get("outcomes") if whole else None
    if not (isinstance(outcomes, list) and all(map(_is_outcome, outcomes))):
        raise ValueError("it is not the outcome of an attack on an image")
    return line


def _is_outcome(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and isinstance(found.get("attack"), str)
        and found.get("outcome") in (HELD, ABSTAINED, FELL)
        and all(type(found.get(name)) in _NUMBERS for name in ("distance", "length", "share"))
    )
