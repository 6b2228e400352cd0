"""The output folder of a training run: whose it is, its log, and where things lie."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deqcert.errors import RunFolderError
from deqcert.training.checkpoint import (
    CHECKPOINT_NAME,
    PARTIAL_NAME,
    cannot_write,
    write_whole,
)

SETTINGS_NAME = "training.json"
LOG_NAME = "log.jsonl"
MODEL_NAME = "model.safetensors"
CARD_NAME = "card.json"
LOCK_NAME = ".lock"
_FORMAT = 1


class TrainingFolder:
    """A folder that belongs to one configuration, for good.

    Args:
        path: The folder, which exists: empty, or of a run with the same settings.
        settings: Everything that determines the weights, as JSON can hold it.

    Raises:
        RunFolderError: The folder holds a run with other settings.
        CheckpointError: The disk refused.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.checkpoint = path / CHECKPOINT_NAME
        self.partial = path / PARTIAL_NAME
        self.log = path / LOG_NAME
        self.model = path / MODEL_NAME
        file = path / SETTINGS_NAME
        if file.is_file():
            _require_same(path, _read(file), {"format": _FORMAT, **settings})
            return
        text = json.dumps({"format": _FORMAT, **settings}, indent=1) + "\n"
        write_whole(file, text.encode())

    def cut_log(self, length: int) -> None:
        """Forget what was logged after byte `length`: those epochs are run again."""
        try:
            if self.log.exists():
                os.truncate(self.log, length)
        except OSError as error:
            raise cannot_write(self.log, error) from error

    def append_log(self, record: Mapping[str, Any]) -> int:
        """Append one line and return the log's length once it is on disk."""
        try:
            with open(self.log, "ab") as stream:
                stream.write((json.dumps(record) + "\n").encode())
                stream.flush()
                os.fsync(stream.fileno())
                return stream.tell()
        except OSError as error:
            raise cannot_write(self.log, error) from error

    def write_card(self, card: Mapping[str, Any]) -> None:
        """Write the card beside the model, for people; the model's file holds it too."""
        write_whole(self.path / CARD_NAME, (json.dumps(card, indent=1) + "\n").encode())

    def read_log(self) -> list[dict[str, Any]]:
        """Return the records of all finished epochs."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines]


def require_usable(path: Path) -> None:
    """Raise RunFolderError unless `path` is missing, empty, or a training run's folder.

    For use before the lock is taken, so that a refused folder is not touched at all.
    """
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path} is a file, but training needs a folder")
    if not path.exists() or (path / SETTINGS_NAME).is_file():
        return
    # A kill between creating the folder and naming its owner leaves only these.
    names = {entry.name for entry in path.iterdir()}
    names -= {LOCK_NAME, f".{SETTINGS_NAME}.tmp"}
    if names:
        raise RunFolderError(
            f"{path} is not empty and holds no training run ({SETTINGS_NAME} is missing); "
            "choose another folder"
        )


def _require_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    old, new = _flat(found), _flat(wanted)
    different = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if different:
        named = ", ".join(
            f"{key} ({old.get(key, 'absent')} there, {new.get(key, 'absent')} now)"
            for key in different[:4]
        )
        more = f" and {len(different) - 4} more" if len(different) > 4 else ""
        raise RunFolderError(
            f"{path} holds a run with other settings: {named}{more}; choose another folder"
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{file} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{file} is damaged: it holds no settings")
    return content


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
