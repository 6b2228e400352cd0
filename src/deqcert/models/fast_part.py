"""Parts of a model that have a fast form for inference, with the plain one inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

CPU = torch.device("cpu")


class FastPart(nn.Module):
    """A part that computes rows of its own precision on its device fast, and all others plainly.

    Args:
        plain: The part it stands for.
        dtype: float32 or bfloat16.
        device: Where the fast form computes.
    """

    def __init__(self, plain: nn.Module, dtype: torch.dtype, device: torch.device = CPU) -> None:
        super().__init__()
        self.plain = plain
        self.dtype = dtype
        self.device = device
        self.active = True

    def serves(self, *inputs: Tensor) -> bool:
        """Return whether the fast form computes these rows."""
        return (
            self.active
            and not torch.is_autocast_enabled(self.device.type)
            and all(
                x.device == self.device
                and x.dtype == self.dtype
                and len(x) > 0
                and not (x.requires_grad and torch.is_grad_enabled())
                for x in inputs
            )
        )


def computes_rows_alone(model: nn.Module, x: Tensor) -> bool:
    """Return whether fast parts compute these rows: every row by itself, inside one thread.

    A question about CPUs: on a GPU all rows are one thread's, whose work is to launch kernels.
    """
    if x.device.type != "cpu":
        return False
    return any(part.serves(x) for part in model.modules() if isinstance(part, FastPart))


@contextmanager
def plain_parts(model: nn.Module) -> Iterator[bool]:
    """Let fast parts compute plainly for a while; gives whether there are any."""
    parts = {part: part.active for part in model.modules() if isinstance(part, FastPart)}
    for part in parts:
        part.active = False
    try:
        yield bool(parts)
    finally:
        for part, active in parts.items():
            part.active = active


def last(x: Tensor) -> Tensor:  # (rows, C, H, W), same shape
    """Return images with their channels innermost in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def array(x: Tensor) -> np.ndarray:  # (rows, C, H, W) channels last -> (rows, H, W * C)
    """Return images as kernels take them, in the same memory; bfloat16 as its bits."""
    rows, channels, height, width = x.shape
    return bits(x.permute(0, 2, 3, 1).view(rows, height, width * channels))


def bits(x: Tensor) -> np.ndarray:  # same shape, same memory
    """Return numbers as kernels take them: bfloat16 as its bits."""
    x = x.detach()
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()
