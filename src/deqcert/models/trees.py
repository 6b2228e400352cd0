"""The tensors of an injection or a state, out of their structure and back into it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from deqcert.solvers import map_tree


def leaves(tree: Any) -> list[Tensor]:
    """Return the tensors in nested tuples, lists and dicts, depth first."""
    found: list[Tensor] = []

    def note(part: Tensor) -> Tensor:
        found.append(part)
        return part

    map_tree(note, tree)
    return found


def with_leaves(tree: Any, replacement: Iterable[Tensor]) -> Any:
    """Return `tree` with its tensors replaced, in the order of `leaves`."""
    source = iter(replacement)
    return map_tree(lambda _: next(source), tree)
