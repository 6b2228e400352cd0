"""Reading a torch file of unknown origin: tensors by name, and nothing in it is run."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from deqcert.errors import CheckpointError
from deqcert.models.public_names import COPIES, COUNTER, canonical_name

HOLDERS = ("state_dict", "model_state", "model_state_dict", "model", "net")
"""Entries of a training checkpoint under which the weights are looked for, in this order."""

_REFUSED = re.compile(r"(?:GLOBAL|class|global|function) [`']?([\w.]+\.\w+)")
_UNREADABLE = "is truncated or not a checkpoint written by torch"
_BLOCK = 1 << 20


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return the tensors of a public checkpoint by canonical name, and what was left out.

    Left out and counted by kind are training state beside the weights, copies of the cell,
    BatchNorm's counters, and entries that are no tensors.

    Raises:
        CheckpointError: Missing, unreadable, truncated, damaged, not torch's, asking for code to be
            run, without a state dict, or with one name twice.
    """
    ignored: Counter[str] = Counter()
    state = _unwrap(_load(path), ignored, path)
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name = canonical_name(str(key))
        if name.startswith(COPIES):
            ignored["tensors in copies of the cell"] += 1
        elif name.endswith(COUNTER):
            ignored[f"{COUNTER} counters"] += 1
        elif not isinstance(value, Tensor):
            ignored["entries that are no tensors"] += 1
        elif name in found:
            raise CheckpointError(f"{path} holds {name} twice, under different prefixes")
        else:
            found[name] = value.detach()
    return found, dict(ignored)


def _load(path: Path) -> Any:
    """Return what the file holds, by torch's reader that builds tensors and containers alone."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint file at {path}")
    try:
        file = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    with file:
        if zipfile.is_zipfile(file):
            _check_sums(file, path)
        file.seek(0)
        return _unpickled(file, path)


def _check_sums(file: BinaryIO, path: Path) -> None:
    """Raise where a stored checksum is wrong; torch's reader does not look at those of tensors."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except Exception as error:  # of whatever the damage looks like
        raise CheckpointError(f"{path} {_UNREADABLE}") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of {damaged} in it is wrong")


def _unpickled(file: BinaryIO, path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old storage types; the file is not the user's work
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything at all
        refused = _REFUSED.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if refused:
            message = f"{path} asks for {refused[1]}, which weights never need; nothing was run"
        else:
            message = f"{path} {_UNREADABLE}"
        raise CheckpointError(message) from error


def _unwrap(content: Any, ignored: Counter[str], path: Path) -> Mapping[Any, Any]:
    """Return the state dict inside a training checkpoint; note what stood beside it."""
    for _ in HOLDERS:  # nested at most so deep
        if not isinstance(content, Mapping):
            break
        holder = next((k for k in HOLDERS if isinstance(content.get(k), Mapping)), None)
        if holder is None:
            return content
        beside = sorted(str(key) for key in content if key != holder)
        if beside:
            ignored[f"entries of training state ({', '.join(beside)})"] += len(beside)
        content = content[holder]
    raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict")
