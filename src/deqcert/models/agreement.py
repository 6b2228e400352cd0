"""A look at what a compiler made for a GPU that no test has seen, before it is used."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deqcert.errors import PerformanceWarning
from deqcert.models.fast_part import FastPart, plain_parts
from deqcert.models.trees import leaves

if TYPE_CHECKING:
    from deqcert.models.equilibrium import EquilibriumModel

_ROWS = 16
_FARTHEST = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Relative distance, of wrong code and not of rounding: the numeric margin measures that."""


def drop_parts_that_disagree(model: EquilibriumModel) -> None:
    """Replace fast parts of a GPU by the plain ones if they fail, or give something else.

    Args:
        model: A copy for inference, where it will compute.

    Warns:
        PerformanceWarning: They were replaced.
    """
    parts = [part for part in model.modules() if isinstance(part, FastPart)]
    if all(map(_tested, parts)):
        return
    why = what_is_wrong(model)
    if why:
        _unwrap(model)
        warnings.warn(
            f"the fast parts for this GPU are not used, but the plain ones: {why}",
            PerformanceWarning,
            stacklevel=3,
        )


@torch.no_grad()
def what_is_wrong(model: EquilibriumModel) -> str:
    """Return why fast parts cannot be used, or nothing: two steps and logits of some rows tell."""
    try:
        with plain_parts(model):
            first, second = _two_steps(model, None)
        found = _two_steps(model, first)
        pairs = zip((*first, *second), (*found[0], *found[1]), strict=True)
        distances = torch.tensor([_distance(b, a) for a, b in pairs])
        farthest = float(distances.max())  # NaN if any is
    except Exception as error:  # a compiler or its tools may fail in many ways
        return str(error).strip().partition("\n")[0] or type(error).__name__
    if farthest <= _FARTHEST[first[0].dtype]:
        return ""
    return f"the two differ by {farthest:.1e} of their size"


def _tested(part: FastPart) -> bool:
    """Return whether tests see what is compiled for this part: that for CPUs."""
    return part.device.type == "cpu"


def _two_steps(
    model: EquilibriumModel, after_first: list[Tensor] | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return f(z0); of that or of what is given instead f, and the logits."""
    like = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(_ROWS, *model.input_shape, generator=generator).to(like.device, like.dtype)
    injection = model.inject(x)
    first = model.first_step(model.initial_state(injection), injection)
    given = first if after_first is None else after_first
    state = given if isinstance(first, Tensor) else tuple(leaves(given))
    return leaves(first), [*leaves(model.cell(state, injection)), model.classify(state)]


def _distance(x: Tensor, expected: Tensor) -> float:
    size = expected.double().norm()
    return float((x.double() - expected.double()).norm() / size.clamp_min(1e-30))


def _unwrap(model: torch.nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FastPart):
                setattr(parent, name, child.plain)
