"""The state of a training run on disk: safetensors and JSON in one file, replaced in one step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, nn

from deqcert.errors import CheckpointError
from deqcert.training.run import Losses

CHECKPOINT_NAME = "checkpoint.safetensors"
"""The state after the last finished epoch."""
PARTIAL_NAME = "partial.safetensors"
"""A later state, within the epoch after that; gone once that epoch has finished."""
_KEY = "deqcert-training"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        epochs: Finished epochs.
        steps: Finished optimiser steps, those of the epoch begun included.
        seconds: Time spent up to here, over all sessions.
        processor_seconds: Processor time spent up to here, all threads together: unlike `seconds`
            it does not grow while the process is held up or shares its cores.
        log_bytes: Length of the log after the last finished epoch; what follows it is redone.
    """

    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    log_bytes: int = 0


def save_checkpoint(
    path: Path,
    *,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    losses: Losses,
) -> None:
    """Write everything that resuming needs; a kill leaves the old file or the new one.

    Raises:
        CheckpointError: The disk refused; the old file is kept.
    """
    tensors = _prefixed("model", model.state_dict()) | _prefixed("average", average.state_dict())
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= _prefixed(f"optimizer.{index}", values)
    tensors |= {
        f"losses.{name}": torch.tensor(values, dtype=torch.float64)
        for name, values in losses.items()
    }
    header = json.dumps({"format": _FORMAT, "progress": vars(progress)})
    write_whole(path, save(tensors, metadata={_KEY: header}))


def load_checkpoint(
    path: Path,
    *,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> tuple[Progress, Losses]:
    """Read a checkpoint into model, average and optimiser.

    Returns:
        How far the run had come, and the losses of the epoch it was in.

    Raises:
        CheckpointError: It is truncated, foreign, or of another architecture.
    """
    tensors, progress = _read(path)
    try:
        model.load_state_dict(_under("model", tensors))
        average.load_state_dict(_under("average", tensors))
        optimizer.load_state_dict(
            {
                "param_groups": optimizer.state_dict()["param_groups"],
                "state": _optimizer_state(tensors),
            }
        )
        losses = {name: part.tolist() for name, part in _under("losses", tensors).items()}
        return Progress(**progress), losses
    except (RuntimeError, ValueError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{path} does not fit this run: {first}") from error


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: temporary file, flush to disk, rename.

    Raises:
        CheckpointError: The disk refused; what was at `path` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> CheckpointError:
    """Return the one-line error for a disk that refused a write to `path`."""
    return CheckpointError(
        f"cannot write {path}: {error.strerror or error}; the last checkpoint is kept, run again "
        "to resume once there is space and permission"
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        header = json.loads(metadata.get(_KEY, "{}"))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or no training checkpoint: {error}") from error
    if header.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} has training format {header.get('format')!r}, but {_FORMAT} is supported"
        )
    return tensors, header["progress"]


def _prefixed(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    # A copy each: tied weights share memory, which the format refuses.
    return {
        f"{prefix}.{name}": torch.as_tensor(value).detach().cpu().clone().contiguous()
        for name, value in tensors.items()
    }


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = prefix + "."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def _optimizer_state(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimizer", tensors).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    return state
