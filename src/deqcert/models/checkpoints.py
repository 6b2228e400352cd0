"""Checkpoints: safetensors and JSON, never pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from deqcert.errors import CheckpointError, ConfigurationError, NumericalWarning
from deqcert.models.equilibrium import EquilibriumModel
from deqcert.models.families import FAMILIES, config_of, family_of
from deqcert.models.hostile import NoLargerThan

SUFFIX = ".safetensors"
WEIGHTS_NAME = f"model{SUFFIX}"
CONFIG_NAME = "config.json"
FORMAT = 1
_KEY = "deqcert"


def weights_digest(model: torch.nn.Module) -> str:
    """Return the SHA-256 of a model's state dict: names, types, shapes and bytes, as hex.

    Of the trainable form, not of a folded copy; the device does not matter.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_model(
    model: EquilibriumModel,
    path: str | Path,
    *,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint and return its path. Nothing half-written is ever left under that path.

    Args:
        model: An `MDEQ` or a `MonDEQ` can be rebuilt from the checkpoint alone (`load_model`);
            other models are read back into an instance (`load_weights`).
        path: A ``.safetensors`` file, which then holds the configuration too; or a folder, which
            gets ``model.safetensors`` and ``config.json``.
        card: Facts about the weights, anything JSON can hold; None keeps `model.card`.

    Raises:
        CheckpointError: The place cannot be written to, or `card` does not fit JSON.
    """
    path = Path(path)
    header = _header(model, model.card if card is None else dict(card))
    tensors = {n: t.detach().cpu().contiguous() for n, t in model.state_dict().items()}
    # A copy each: tied weights share memory, which the format refuses.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    data = save(tensors, metadata={_KEY: header})
    try:
        if path.suffix == SUFFIX:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(path, data)
        else:
            path.mkdir(parents=True, exist_ok=True)
            # The weights carry the header as well, so that the two files cannot drift apart.
            _write_whole(path / WEIGHTS_NAME, data)
            _write_whole(path / CONFIG_NAME, (header + "\n").encode())
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {path}: {error.strerror}") from error
    return path


def read_model(path: Path, *, pretrained: bool = True) -> EquilibriumModel:
    """Return the model a checkpoint describes, in eval mode, with its card.

    Args:
        path: Folder or ``.safetensors`` file.
        pretrained: False keeps the configuration and leaves the weights fresh.

    Raises:
        CheckpointError: The file is missing, truncated or foreign, its weights are of another
            architecture or not finite, or only its own code can build the model.

    Warns:
        NumericalWarning: The card names the digest of other weights.
    """
    tensors, header = _read(path)
    if header.get("family") not in FAMILIES:
        raise CheckpointError(
            f"{path} holds a {header.get('family', 'nameless')!r}, which only its own code can "
            "build; build it and call load_weights"
        )
    try:
        with NoLargerThan(sum(tensor.numel() for tensor in tensors.values())):
            model = FAMILIES[header["family"]].build(header["config"])
    except Exception as error:  # written by anybody, it may break anything on the way
        raise CheckpointError(
            f"{path} has a damaged configuration: {_first_line(error)}"
        ) from error
    if pretrained:
        _fill(model, tensors, header, path)
    return model.eval()


def load_weights(model: EquilibriumModel, path: str | Path) -> None:
    """Read a checkpoint's weights and card into `model`.

    Raises:
        CheckpointError: As for `read_model`; the model is then unchanged.

    Warns:
        NumericalWarning: The card names the digest of other weights.
    """
    tensors, header = _read(Path(path))
    _fill(model, tensors, header, Path(path))


def _header(model: EquilibriumModel, card: Mapping[str, Any] | None) -> str:
    content: dict[str, Any] = {"format": FORMAT, "family": type(model).__name__, "card": card or {}}
    family = family_of(model)
    if family is not None:
        content |= {"family": family, "config": dataclasses.asdict(config_of(model))}
    try:
        return json.dumps(content, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"a card must hold what JSON can hold: {error}") from error


def _write_whole(path: Path, data: bytes) -> None:
    """Write beside the target, flush, then rename: the target is the old file or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and header of a checkpoint."""
    file = path / WEIGHTS_NAME if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"no checkpoint at {file}")
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is truncated or not a safetensors file ({_first_line(error)})"
        ) from error
    if _KEY not in metadata:
        raise CheckpointError(f"{file} is a foreign safetensors file: it has no deqcert header")
    header = _parse(metadata[_KEY], file)
    config = path / CONFIG_NAME
    if path.is_dir() and config.is_file():
        # The card may be edited by hand; what was trained may not.
        beside = _parse(config.read_text(encoding="utf-8", errors="replace"), config)
        if any(beside.get(key) != header.get(key) for key in ("format", "family", "config")):
            raise CheckpointError(f"{config} describes another model than {file}")
        header["card"] = beside.get("card", {})
    return tensors, header


def _parse(text: str, source: Path) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source} has a damaged header: {_first_line(error)}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else header
        raise CheckpointError(
            f"{source} has checkpoint format {found!r}, but {FORMAT} is supported"
        )
    return header


def _fill(
    model: EquilibriumModel, tensors: dict[str, Tensor], header: dict[str, Any], path: Path
) -> None:
    """Check everything, then load: a refused checkpoint changes nothing."""
    own = model.state_dict()
    faults = []
    if missing := sorted(own.keys() - tensors.keys()):
        faults.append(f"lacks {some_of(missing)}")
    if extra := sorted(tensors.keys() - own.keys()):
        faults.append(f"has left over {some_of(extra)}")
    shared = sorted(own.keys() & tensors.keys())
    shapes = [
        f"{n} {tuple(tensors[n].shape)} for {tuple(own[n].shape)}"
        for n in shared
        if tensors[n].shape != own[n].shape
    ]
    if shapes:
        faults.append(f"has other shapes: {some_of(shapes)}")
    if faults:
        raise CheckpointError(f"{path} is of another architecture: it {', '.join(faults)}")
    bad = [n for n in shared if not bool(torch.isfinite(tensors[n]).all())]
    if bad:
        raise CheckpointError(f"{path} holds weights that are not finite: {some_of(bad)}")
    model.load_state_dict(tensors)
    model.card = header.get("card") or {}
    about = model.card.get("weights") if isinstance(model.card, dict) else None
    if isinstance(about, str) and about != weights_digest(model):
        warnings.warn(
            f"the card of {path} is about other weights: what it says of accuracy and noise is not "
            "of these",
            NumericalWarning,
            stacklevel=4,
        )


def some_of(names: Iterable[str], most: int = 3) -> str:
    """Return the first few names and how many more there are."""
    listed = list(names)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
