"""Building models from descriptions of unknown origin, without being made to fill the memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from deqcert.errors import CheckpointError

SLACK = 100_000
"""Numbers a model may make while it is built besides twice its weights."""

_MAKERS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, torch.rand, torch.randn}


class NoLargerThan(TorchFunctionMode):
    """Within it, tensors may be made of so many numbers in all as weights that are there allow.

    A description names sizes in a few bytes; the weights beside it have to be there in full.

    Args:
        numbers: Numbers in the weights.

    Raises:
        CheckpointError: More were to be made.
    """

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self._left = 2 * numbers + SLACK

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make a tensor, and count it: memory is taken when it is filled, not when it is made."""
        del types
        given = dict(kwargs or {})
        if func in _MAKERS:
            # Asked for on no device first, since all but `empty` fill what they make at once.
            self._left -= func(*args, **{**given, "device": "meta"}).numel()
            if self._left < 0:
                raise CheckpointError("its configuration asks for more weights than there are")
        return func(*args, **given)
