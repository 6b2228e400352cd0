"""How far a state is from its fixed point, row by row, and whether it is a number at all."""

from __future__ import annotations

import torch
from torch import Tensor

from deqcert.solvers import compiled
from deqcert.solvers.reduce import row_changes, wide
from deqcert.solvers.state import Layout, State, map_state


def relative_residual(z: State, fz: State) -> Tensor:  # shape: (B,), float32
    """Return ||f(z) - z|| / ||f(z)|| of each row, over all its tensors together."""
    layout = Layout.of(fz)
    first, *rest = map(row_changes, layout.split(z), layout.split(fz))
    for squares in rest:
        first += squares
    return ratios(first)


def ratios(squares: Tensor) -> Tensor:  # (2, B) float64 -> (B,) float32
    """Return the residuals of rows whose ||f(z) - z||^2 and ||f(z)||^2 these are."""
    limits = torch.finfo(torch.float32)
    if squares.device.type == "cpu":  # one call instead of a dozen on few numbers
        out = torch.empty(squares.shape[1], dtype=torch.float32)
        if compiled.ratios(squares, limits, out):
            return out
    change, size = squares.sqrt()
    ratio = change / size.clamp_min(limits.tiny)
    # f(z) = 0 gives a huge ratio, not a failure: only what is not finite itself may become inf.
    finite = squares.isfinite().all(0)
    return torch.where(finite, ratio.clamp_max(limits.max), ratio).float()


def finite_rows(state: State) -> Tensor:  # shape: (B,), bool
    """Return which rows are finite (a row whose sum overflows counts as not)."""
    # One pass, and no mask of the state's size.
    parts = Layout.of(state).split(state)
    sums = [part.sum(-1, dtype=wide(part.dtype)) for part in parts]
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
