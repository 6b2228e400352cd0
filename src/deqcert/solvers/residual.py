"""How far a state is from its fixed point, row by row, and whether it is a number at all."""

from __future__ import annotations

import torch
from torch import Tensor

from deqcert.solvers.reduce import row_distance, row_dot
from deqcert.solvers.state import Layout, State, leaves, map_state


def relative_residual(z: State, fz: State) -> Tensor:  # shape: (B,), float32
    """Return ||f(z) - z|| / ||f(z)|| of each row, over all its tensors together."""
    change, scale = [], []
    for a, b in zip(leaves(z), leaves(fz), strict=True):
        layout = Layout.of(b)
        value = layout.flatten(b)
        change.append(row_distance(value, layout.flatten(a)))
        scale.append(row_dot(value, value))
    squared, size = torch.stack(change).sum(0), torch.stack(scale).sum(0)
    limits = torch.finfo(torch.float32)
    ratio = squared.sqrt() / size.sqrt().clamp_min(limits.tiny)
    # f(z) = 0 gives a huge ratio, not a failure: only what is not finite itself may become inf.
    bounded = torch.where(squared.isfinite() & size.isfinite(), ratio.clamp_max(limits.max), ratio)
    return bounded.float()


def finite_rows(state: State) -> Tensor:  # shape: (B,), bool
    """Return which rows are finite (a row whose sum overflows counts as not)."""
    # One pass, and no mask of the state's size.
    sums = [part.flatten(1).sum(-1, dtype=_wide(part)) for part in leaves(state)]
    return torch.stack(sums).isfinite().all(0)


def poisoned(
    state: State,  # tensors of shape (B, ...)
    bad: Tensor,  # shape: (B,), bool
) -> State:
    """Return the state with NaN throughout its bad rows, so that nobody takes them for answers."""
    if (
        bad.device.type == "cpu" and not bad.any()
    ):  # elsewhere the question would make the host wait
        return state
    return map_state(
        lambda part: part.masked_fill(bad.view(-1, *[1] * (part.ndim - 1)), torch.nan), state
    )


def _wide(part: Tensor) -> torch.dtype:
    return torch.float64 if part.dtype == torch.float64 else torch.float32
