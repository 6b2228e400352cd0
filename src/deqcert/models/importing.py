"""Import of checkpoints that the public MDEQ and SRS repositories write (PAPER 4)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deqcert.errors import CheckpointError, ConfigurationError, unknown_name
from deqcert.models.checkpoints import (
    SUFFIX,
    WEIGHTS_NAME,
    read_model,
    save_model,
    some_of,
    weights_digest,
)
from deqcert.models.foreign_file import file_sha256, read_state
from deqcert.models.mdeq import MDEQ
from deqcert.models.mdeq_config import MDEQConfig
from deqcert.models.public_names import public_names
from deqcert.models.zoo import ARCHITECTURES

_FUSION_NORM = re.compile(r"fullstage\.post_fuse_layers\.\d+\.gnorm\.weight")
_CLASSES = "classifier.weight"


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What became of the entries of an imported file.

    Attributes:
        source: Name of the file, without folders.
        sha256: Of the whole file, hex.
        architecture: The architecture its weights were given to.
        tensors: Tensors taken over.
        parameters: Trainable numbers of the model.
        ignored: Kinds of entries that were left out, with how many of each.
        notes: What was changed or differs from the named architecture, one line each.
        weights_digest: `weights_digest` of the imported model.
    """

    source: str
    sha256: str
    architecture: str
    tensors: int
    parameters: int
    ignored: dict[str, int]
    notes: tuple[str, ...]
    weights_digest: str


def import_checkpoint(
    path: str | Path, *, architecture: str, sigma: float | None = None
) -> tuple[MDEQ, ImportReport]:
    """Return the model of a public ``.pth.tar`` or ``.pth`` file in eval mode, and a report.

    Read are state dicts and training checkpoints around one, of the first and the later MDEQ code
    and of the SRS code, with any prefixes of wrappers, with weight norm (``weight_g`` and
    ``weight_v``) or without (split then, which changes no weight), in any floating-point type
    (rounded to float32). Standardisation is the architecture's: the public code keeps it outside
    the file. Nothing in the file is run.

    Args:
        path: The file.
        architecture: A name of `public_architectures()`.
        sigma: Noise level the weights were trained at, for the card; None where unknown.

    Raises:
        UnknownNameError: No such public architecture.
        ConfigurationError: `sigma` is not above 0.
        CheckpointError: Missing, truncated or not torch's; it asks for code to be run; its
            weights are of another architecture or number of classes, or not usable numbers.
    """
    path = Path(path)
    known = public_architectures()
    if architecture not in known:
        raise unknown_name("public architecture", architecture, known)
    if sigma is not None and not (math.isfinite(sigma) and sigma > 0):
        raise ConfigurationError(f"sigma must be finite and > 0, but got {sigma}")
    tensors, ignored = read_state(path)
    named = ARCHITECTURES[architecture]
    assert isinstance(named, MDEQConfig), "the public architectures are MDEQs"
    config, notes = _fitting(named, tensors)
    names = public_names(config)
    notes += _split_plain_weights(tensors, names)
    model = MDEQ(config)
    own = model.state_dict()
    _check_names({name: own[ours] for name, ours in names.items()}, tensors, architecture, path)
    notes += _round(tensors, path)
    _check_values(tensors, path)
    model.load_state_dict({**own, **{names[name]: t for name, t in tensors.items()}})
    report = ImportReport(
        source=path.name,
        sha256=file_sha256(path),
        architecture=architecture,
        tensors=len(tensors),
        parameters=sum(p.numel() for p in model.parameters()),
        ignored=ignored,
        notes=tuple(notes),
        weights_digest=weights_digest(model),
    )
    model.card = _card(report, sigma)
    return model.eval(), report


def convert_checkpoint(
    path: str | Path, out: str | Path, *, architecture: str, sigma: float | None = None
) -> ImportReport:
    """Import a public checkpoint and save it in our format, with a card that names its source.

    Args:
        path: As for `import_checkpoint`.
        out: Folder or ``.safetensors`` file, as for `save_model`.
        architecture: As for `import_checkpoint`.
        sigma: As for `import_checkpoint`.

    Raises:
        UnknownNameError: As for `import_checkpoint`.
        ConfigurationError: As for `import_checkpoint`.
        CheckpointError: As for `import_checkpoint`; or `out` holds other weights already, or
            cannot be written to.
    """
    model, report = import_checkpoint(path, architecture=architecture, sigma=sigma)
    held = Path(out) if Path(out).suffix == SUFFIX else Path(out) / WEIGHTS_NAME
    if held.exists() and weights_digest(read_model(held)) != report.weights_digest:
        raise CheckpointError(f"{held} holds other weights already; choose another place for these")
    save_model(model, out)
    return report


def public_architectures() -> list[str]:
    """Return the architectures that public checkpoints can be imported as."""
    return [
        name
        for name, config in ARCHITECTURES.items()
        if isinstance(config, MDEQConfig) and config.head == "bottleneck"
    ]


def _fitting(config: MDEQConfig, tensors: Mapping[str, Tensor]) -> tuple[MDEQConfig, list[str]]:
    """Return the configuration with or without scale and shift after fusion, as the file has it."""
    affine = any(_FUSION_NORM.fullmatch(name) for name in tensors)
    if affine == config.fusion_affine:
        return config, []
    note = f"{'with' if affine else 'without'} scale and shift after fusion, as in the file"
    return config.replace(fusion_affine=affine), [note]


def _split_plain_weights(tensors: dict[str, Tensor], names: Mapping[str, str]) -> list[str]:
    """Split weights stored without weight norm into norm and direction; return a note of it."""
    count = 0
    for stem in [name.removesuffix("_v") for name in names if name.endswith(".weight_v")]:
        weight = tensors.get(stem)
        if weight is None or f"{stem}_v" in tensors or not _is_plain(weight) or weight.ndim != 4:
            continue
        norm = torch.linalg.vector_norm(weight.double(), dim=(1, 2, 3), keepdim=True)
        del tensors[stem]
        tensors[f"{stem}_g"] = norm.float()
        # A filter of zeros has no direction; any will do beside a norm of 0.
        tensors[f"{stem}_v"] = torch.where(norm == 0, torch.ones_like(weight), weight)
        count += 1
    return [f"{count} weights without weight norm, split into norm and direction"] if count else []


def _check_names(
    wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], architecture: str, path: Path
) -> None:
    """Raise unless exactly the wanted names are there, in the wanted shapes."""
    faults = []
    if missing := [name for name in wanted if name not in tensors]:
        faults.append(f"lacks {some_of(missing)}")
    if extra := [name for name in tensors if name not in wanted]:
        faults.append(f"has left over {some_of(extra)}")
    shapes = {n: tuple(tensors[n].shape) for n in wanted if n in tensors}
    wrong = [n for n, shape in shapes.items() if shape != tuple(wanted[n].shape)]
    head = wanted[_CLASSES].shape
    found = shapes.get(_CLASSES, ())
    if not faults and set(wrong) <= {_CLASSES, "classifier.bias"} and found[1:] == head[1:]:
        if wrong:
            raise CheckpointError(
                f"{path} tells {found[0]} classes apart, but {architecture} has {head[0]}"
            )
        return
    if wrong:
        texts = [f"{n} {shapes[n]} for {tuple(wanted[n].shape)}" for n in wrong]
        faults.append(f"has other shapes: {some_of(texts)}")
    raise CheckpointError(f"{path} is no {architecture}: it {'; '.join(faults)}")


def _is_plain(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout == torch.strided


def _round(tensors: dict[str, Tensor], path: Path) -> list[str]:
    """Turn all tensors into plain float32; return a note of what that rounded."""
    kinds: set[str] = set()
    for name, tensor in tensors.items():
        if not _is_plain(tensor):
            raise CheckpointError(f"{path} holds {name} as {tensor.dtype}, {tensor.layout}")
        if tensor.dtype != torch.float32:
            kinds.add(str(tensor.dtype).removeprefix("torch."))
        tensors[name] = tensor.to(torch.float32).contiguous()
    return [f"stored as {', '.join(sorted(kinds))}, now float32"] if kinds else []


def _check_values(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise unless all numbers are finite and can be computed with."""
    if bad := [n for n, t in tensors.items() if not bool(torch.isfinite(t).all())]:
        raise CheckpointError(f"{path} holds weights that are not finite: {some_of(bad)}")
    if bad := [n for n, t in tensors.items() if n.endswith("running_var") and bool((t < 0).any())]:
        raise CheckpointError(f"{path} holds variances below 0: {some_of(bad)}")
    directions = {n: t.flatten(1) for n, t in tensors.items() if n.endswith("weight_v")}
    if bad := [n for n, t in directions.items() if bool((t.norm(dim=1) == 0).any())]:
        raise CheckpointError(f"{path} holds filters without a direction: {some_of(bad)}")


def _card(report: ImportReport, sigma: float | None) -> dict[str, object]:
    card: dict[str, object] = {
        "architecture": report.architecture,
        "imported_from": {"file": report.source, "sha256": report.sha256},
        "notes": list(report.notes),
    }
    return card if sigma is None else {**card, "sigma": float(sigma)}
