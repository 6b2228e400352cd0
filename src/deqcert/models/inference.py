"""Copies of a model for inference: the same function, fewer operations, no gradients."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import nn

from deqcert.errors import ConfigurationError
from deqcert.models.agreement import drop_parts_that_disagree
from deqcert.models.equilibrium import EquilibriumModel
from deqcert.models.fast_part import FastPart
from deqcert.models.fused_cell import fused_cell
from deqcert.models.fused_ends import fused_end
from deqcert.models.graphs import RecordedSolves
from deqcert.models.layers import Logits, fold_batch_norm
from deqcert.models.mdeq_cell import MDEQCell
from deqcert.models.mdeq_ends import BottleneckHead, Stem
from deqcert.models.recorder import CudaRecorder
from deqcert.solvers.agreement import is_known_gpu

_WITH_FAST_FORMS = (MDEQCell, Stem, BottleneckHead)


def inference_copy(
    model: EquilibriumModel,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> EquilibriumModel:
    """Return a folded copy of `model` in eval mode; the model itself is left as it is.

    Every submodule with a `fold()` method gives way to what that returns, and inside an
    `nn.Sequential` a convolution followed by BatchNorm becomes one convolution. Cell, stem and head
    of an MDEQ give way to their fast forms (`fused_cell`, `fused_ends`, `gpu_ends`): on the CPU if
    numba is there, on a GPU if Triton is there and what it compiles agrees with the plain parts.
    All are exact up to rounding. On a GPU solves of fixed steps are replayed (`graphs`).

    Args:
        model: Any equilibrium model.
        dtype: Precision of the copy; None keeps the model's. The logits of an MDEQ stay in float32
            even if all else is in half precision.
        device: Where the copy lives; None keeps the model's.

    Raises:
        ConfigurationError: A submodule stays in training mode (THEORY 7.5).

    Warns:
        PerformanceWarning: Fast parts of a GPU are left out because they fail or disagree.
    """
    folded = copy.deepcopy(model).eval()
    stubborn = [name for name, part in folded.named_modules() if part.training]
    if stubborn:
        raise ConfigurationError(f"eval() must reach all modules, but {stubborn[0]!r} still trains")
    _fold_children(folded)
    _fuse(folded, dtype, device)
    exact = copy.deepcopy([part for part in folded.modules() if isinstance(part, Logits)])
    folded = folded.to(device=device, dtype=dtype)
    if dtype in (torch.bfloat16, torch.float16):
        _restore_logits(folded, exact)
    folded.requires_grad_(False)
    drop_parts_that_disagree(folded)
    place = next(folded.parameters(), torch.empty(0)).device
    on_gpu = place.type == "cuda"
    folded.recorded_solves = RecordedSolves(partial(CudaRecorder, place)) if on_gpu else None
    return folded


def lacks_fast_parts(model: nn.Module) -> bool:
    """Return whether a copy for inference lacks the fast form of a part of an MDEQ."""
    inside = {id(part.plain) for part in model.modules() if isinstance(part, FastPart)}
    return any(
        type(part) in _WITH_FAST_FORMS
        and id(part) not in inside
        and next(part.parameters()).device.type in ("cpu", "cuda")
        for part in model.modules()
    )


def _restore_logits(model: nn.Module, exact: list[Logits]) -> None:
    """Give the layers of logits the weights they had before they lost half of their bits."""
    layers = [part for part in model.modules() if isinstance(part, Logits)]
    for layer, before in zip(layers, exact, strict=True):
        layer.float().load_state_dict(before.state_dict())


def _fuse(model: nn.Module, dtype: torch.dtype | None, device: torch.device | str | None) -> None:
    """Replace parts that have a faster form for this precision and device."""
    like = next(model.parameters(), torch.empty(0))
    wanted, place = dtype or like.dtype, torch.device(device or like.device)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            fast = _faster(child, wanted, place)
            if fast is not child:
                setattr(parent, name, fast)
    if any(isinstance(part, FastPart) for part in model.modules()):
        # What the parts are given lies in memory as they need it.
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _faster(part: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    if type(part) is MDEQCell:
        return fused_cell(part, dtype, device)
    if device.type == "cpu":
        return fused_end(part, dtype)
    return _faster_on_gpu(part, dtype, device) if is_known_gpu(device) else part


def _faster_on_gpu(part: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    try:
        from deqcert.models.gpu_ends import gpu_end  # loads a compiler: only where it is used
    except ImportError:  # Triton comes with PyTorch for GPUs alone
        return part
    return gpu_end(part, dtype, device)


def _fold_children(parent: nn.Module) -> None:
    for name, child in parent.named_children():
        fold = getattr(child, "fold", None)
        if callable(fold):
            folded = fold()
            assert isinstance(folded, nn.Module)
            setattr(parent, name, folded)
        else:
            _fold_children(child)
    if type(parent) is nn.Sequential:  # a subclass may run its parts in another order
        _fold_neighbours(parent)


def _fold_neighbours(parts: nn.Sequential) -> None:
    for index in range(len(parts) - 1):
        conv, norm = parts[index], parts[index + 1]
        if _is_foldable(conv, norm):
            parts[index] = fold_batch_norm(conv, norm)  # pyright: ignore[reportArgumentType]
            parts[index + 1] = nn.Identity()


def _is_foldable(conv: nn.Module, norm: nn.Module) -> bool:
    # Subclasses may compute something else, and other padding modes do not fold exactly; both
    # are left alone.
    return (
        type(conv) is nn.Conv2d
        and type(norm) is nn.BatchNorm2d
        and conv.padding_mode == "zeros"
        and norm.running_mean is not None
    )
