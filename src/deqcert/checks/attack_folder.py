"""Where an attack is written: settings in ``attack.json``, one line per image, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deqcert.errors import RunFolderError
from deqcert.results.configuration import as_json, require_same
from deqcert.results.files import LineFile, cannot_write, write_atomically

HEADER, LINES = "attack.json", "attack.jsonl"


class AttackFolder:
    """The results of an attack on disk; use it in a ``with``.

    Attributes:
        path: The folder.
        seed: Seed of all noise of this attack.
        lines: One table per image attacked, in order.
    """

    def __init__(self, path: Path, seed: int, lines: list[dict[str, Any]], end: int) -> None:
        self.path = path
        self.seed = seed
        self.lines = lines
        self._file = LineFile(path / LINES, end=end)

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
            RunFolderError: An attack with other settings, something else, or a disk that refuses.
        """
        wanted = as_json("attack", header)
        file = path / HEADER
        try:
            path.mkdir(parents=True, exist_ok=True)
            stored = json.loads(file.read_text()) if file.exists() else None
            foreign = stored is None and any(path.iterdir())
        except OSError as error:
            raise cannot_write(path, error) from error
        except ValueError as error:
            raise RunFolderError(f"{file} is damaged: {error}") from error
        if foreign:
            raise RunFolderError(f"{path} is not empty and holds no attack; choose another folder")
        if stored is None:
            stored = {**wanted, "seed": fresh() if seed is None else seed}
            write_atomically(file, json.dumps(stored, indent=2) + "\n")
        wanted["seed"] = stored.get("seed") if seed is None else seed
        require_same(path, stored=stored, wanted=wanted)
        lines, end = _read(path / LINES)
        return cls(path, stored["seed"], lines, end)

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


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the whole lines and their length in bytes; a torn last line is left out."""
    lines, end = [], 0
    content = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise RunFolderError(f"{path}, line {number}, is damaged: {error}") from error
        end += len(line)
    return lines, end
