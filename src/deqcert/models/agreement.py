"""A look at what a compiler made for a GPU that no test has seen, before it is used."""

from __future__ import annotations

import copy
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deqcert.errors import PerformanceWarning
from deqcert.models.devices import named_precision
from deqcert.models.fast_part import FastPart, plain_parts
from deqcert.models.trees import leaves
from deqcert.solvers import map_tree

if TYPE_CHECKING:
    from deqcert.models.equilibrium import EquilibriumModel

_ROWS = 16
_FARTHEST = {torch.float32: 1e-3, torch.bfloat16: 0.06}
"""Distance of wrong code, and not of rounding: the numeric margin measures that."""

Call = tuple[Any, ...]
"""Arguments that a part is called with."""


@torch.no_grad()
def drop_parts_that_disagree(model: EquilibriumModel) -> None:
    """Replace fast parts of a GPU by the plain ones if they fail, or give something else.

    Args:
        model: A copy for inference, where it will compute.

    Warns:
        PerformanceWarning: For each part that was replaced.
    """
    parts = [part for part in model.modules() if isinstance(part, FastPart)]
    looked_at = [part for part in parts if not _tested(part)]
    calls = _calls(model, looked_at) if looked_at else {}
    for part in looked_at:
        with named_precision(part.device):  # TF32 is farther off than what is looked for
            why = what_is_wrong(part, calls[part])
        if why:
            _unwrap(model, part)
            warnings.warn(
                f"{type(part).__name__} for this GPU is not used, but {type(part.plain).__name__}: "
                f"{why}",
                PerformanceWarning,
                stacklevel=3,
            )


@torch.no_grad()
def what_is_wrong(part: FastPart, calls: list[Call]) -> str:
    """Return why a fast part cannot be used, or nothing.

    It is compared with the plain part in float32, so that the rounding of that one in half
    precision does not count.

    Args:
        part: The part.
        calls: What it is called with.
    """
    exact = copy.deepcopy(part.plain).float()
    try:
        for call in calls:
            wanted = exact(*map_tree(Tensor.float, call))
            for a, b in zip(leaves(part(*call)), leaves(wanted), strict=True):
                apart = _distance(a, b)
                if not apart <= _FARTHEST[part.dtype]:  # or NaN
                    return f"the two differ by {apart:.1e} of their size"
    except Exception as error:  # a compiler or its tools may fail in many ways
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return ""


def _tested(part: FastPart) -> bool:
    """Return whether tests see what is compiled for this part: that for CPUs."""
    return part.device.type == "cpu"


def _calls(model: EquilibriumModel, parts: list[FastPart]) -> dict[FastPart, list[Call]]:
    """Return what two steps of some rows, and their logits, call each part with."""
    calls: dict[FastPart, list[Call]] = {part: [] for part in parts}
    like = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(_ROWS, *model.input_shape, generator=generator).to(like.device, like.dtype)
    with ExitStack() as stack:
        for part in parts:
            note = lambda own, call: calls[own].append(call)  # noqa: E731
            stack.callback(part.register_forward_pre_hook(note).remove)
        stack.enter_context(plain_parts(model))
        injection = model.inject(x)
        state = model.first_step(model.initial_state(injection), injection)
        model.classify(model.cell(state, injection))
    return calls


def _distance(x: Tensor, expected: Tensor) -> float:  # (rows, C, ...)
    """Return how far a row, a channel or a place is from what is expected, in sizes of such a one.

    Wrong code may err at few places only, which the norm of the whole hardly shows.
    """
    wanted = expected.double()
    apart, size = (x.double() - wanted).square(), wanted.square()
    rows, channels, places = {0}, {1}, set(range(2, x.dim()))
    worst = []
    for kept in (rows, channels, places) if places else (rows, channels):
        others = [k for k in range(x.dim()) if k not in kept]
        usual = size.sum(others).mean().clamp_min(1e-30)
        worst.append(apart.sum(others).max() / usual)
    return float(torch.stack(worst).max().sqrt())  # NaN if any is


def _unwrap(model: nn.Module, part: FastPart) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is part:
                setattr(parent, name, child.plain)
