"""States of one or several resolutions as one flat matrix, and rows picked out of anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deqcert.errors import ConfigurationError

State = Tensor | tuple[Tensor, ...]
"""An equilibrium state: a batch-first tensor, or a tuple of them (one per resolution)."""


def leaves(state: State) -> tuple[Tensor, ...]:
    """Return the tensors of a state, in order."""
    return (state,) if isinstance(state, Tensor) else tuple(state)


def map_state(function: Callable[..., Tensor], *states: State) -> State:
    """Apply `function` to matching tensors of equally built states."""
    if isinstance(states[0], Tensor):
        return function(*states)
    return tuple(function(*parts) for parts in zip(*states, strict=True))


def map_tree(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply `function` to every tensor in nested tuples, lists and dicts; the rest is kept."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tree(function, part) for part in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)(map_tree(function, part) for part in tree)
    if isinstance(tree, dict):
        return {key: map_tree(function, part) for key, part in tree.items()}
    return tree


def select_rows(
    tree: Any,  # tensors of shape (B, ...)
    rows: Tensor,  # shape: (R,), int64, in [0, B)
) -> Any:  # tensors of shape (R, ...)
    """Return the given rows of every tensor of a nested structure, in its own memory order."""
    return map_tree(lambda part: _pick(part, rows), tree)


def _pick(part: Tensor, rows: Tensor) -> Tensor:
    if not _is_channels_last(part):
        return part.index_select(0, rows)
    # index_select alone would turn channels innermost into channels outermost.
    return part.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)


def batch_rows(state: State) -> int:
    """Return the number of rows of a state.

    Raises:
        ConfigurationError: It has no tensor, or its tensors differ in rows, type or device.
    """
    parts = leaves(state)
    if not parts or any(part.ndim < 1 for part in parts):
        raise ConfigurationError("a state must be a batch-first tensor or a tuple of them")
    kinds = {(part.shape[0], part.dtype, part.device) for part in parts}
    if len(kinds) > 1:
        raise ConfigurationError(
            "the tensors of a state must agree in rows, type and device, but got "
            f"{sorted(map(str, kinds))}"
        )
    return parts[0].shape[0]


@dataclass(frozen=True)
class Layout:
    """How a state lies in one flat (B, D) matrix; memory order decides, so views need no copy.

    Attributes:
        shapes: Shape of each tensor without the batch dimension.
        channels_last: Whether each tensor is kept with its channels innermost.
        single: Whether the state is one tensor rather than a tuple.
    """

    shapes: tuple[torch.Size, ...]
    channels_last: tuple[bool, ...]
    single: bool

    @classmethod
    def of(cls, state: State) -> Layout:
        """Return the layout that flattens `state` with the fewest copies."""
        parts = leaves(state)
        return cls(
            tuple(part.shape[1:] for part in parts),
            tuple(_is_channels_last(part) for part in parts),
            isinstance(state, Tensor),
        )

    @property
    def features(self) -> int:
        """Floats of one row, D."""
        return sum(shape.numel() for shape in self.shapes)

    def split(self, state: State) -> list[Tensor]:  # each of shape (B, D_i)
        """Return one matrix per tensor: a view of those that lie in memory as the layout says."""
        parts = []
        for part, last in zip(leaves(state), self.channels_last, strict=True):
            ordered = part.permute(0, 2, 3, 1) if last else part
            parts.append(ordered.reshape(part.shape[0], -1))
        return parts

    def join(
        self,
        parts: Sequence[Tensor],  # each of shape (B, D_i)
    ) -> State:
        """Return the state that one matrix per tensor stands for; views of dense matrices."""
        folded = tuple(map(_fold, parts, self.shapes, self.channels_last))
        return folded[0] if self.single else folded

    def flatten(self, state: State) -> Tensor:  # shape: (B, D)
        """Return the state as one matrix: a view of a single tensor, a copy of several."""
        parts = self.split(state)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def unflatten(
        self,
        flat: Tensor,  # shape: (B, D)
    ) -> State:
        """Return the state a matrix stands for, every tensor dense in memory."""
        return self.join(flat.split([shape.numel() for shape in self.shapes], dim=1))


def _fold(piece: Tensor, shape: torch.Size, last: bool) -> Tensor:
    # Cells may call .view: a slice of the matrix, rows apart, would break there.
    piece = piece.contiguous()
    if not last:
        return piece.view(-1, *shape)
    channels, height, width = shape
    return piece.view(-1, height, width, channels).permute(0, 3, 1, 2)


def _is_channels_last(part: Tensor) -> bool:
    return (
        part.ndim == 4
        and not part.is_contiguous()
        and part.is_contiguous(memory_format=torch.channels_last)
    )
