"""GroupNorm, with or without the positive part, fast where a model trains channels last.

On a CPU the convolutions of training take half the time channels last, most of all their backward
passes, and PyTorch's GroupNorm several times its usual one; `norm_kernels` closes that gap.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from deqcert.models.fast_part import array, last
from deqcert.solvers.row_chunks import GRAIN, chunks, for_chunks

_WIDE = 16
"""Channels from which the usual order is as fast or faster: it fills vector registers with them."""


class GroupNorm(nn.GroupNorm):
    """PyTorch's, fast for images that lie channels last while training on a CPU."""

    def forward(self, input: Tensor, *, relu: bool = False) -> Tensor:  # (batch, C, H, W)
        """Normalise; with `relu`, take the positive part too."""
        if self.training and _is_fast(input):
            return _GroupNorm.apply(input, self.weight, self.bias, self, relu)  # pyright: ignore
        y = super().forward(input)
        return F.relu(y) if relu else y


def order_for_training(x: Tensor, width: int) -> Tensor:  # (batch, C, H, W), same shape
    """Return images in the memory order that trains fastest where they are.

    Args:
        x: Images.
        width: Channels of the highest resolution.
    """
    if width >= _WIDE or x.device.type != "cpu" or _kernels() is None:
        return x
    # A single channel counts as both orders: only the strides say which is meant.
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _is_fast(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
        and _kernels() is not None
    )


@lru_cache(maxsize=1)
def _kernels() -> Any:
    """Return the compiled kernels, or None where the extra that compiles them is missing."""
    try:
        from deqcert.models import norm_kernels  # loads a compiler: only where it is used
    except ImportError:
        return None
    return norm_kernels


class _GroupNorm(torch.autograd.Function):
    """GroupNorm of images channels last, whose gradient can itself be differentiated."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # (batch, C, H, W) channels last
        weight: Tensor | None,  # (C,)
        bias: Tensor | None,  # (C,)
        norm: nn.GroupNorm,
        relu: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.norm, ctx.relu = norm, relu
        out = torch.empty_like(x)
        source, to, affine = array(x), array(out), _affine(x, weight, bias)

        def work(low: int, high: int) -> None:
            _kernels().norm_to(
                source[low:high], to[low:high], *affine, norm.num_groups, norm.eps, relu
            )

        for_chunks(work, len(x), _share(len(x)))
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        x, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated (Jacobian penalty)
            return (*_gradients(x, weight, bias, grad, ctx.norm, ctx.relu), None, None)
        out = torch.empty_like(x)
        source, above, to = array(x), array(last(grad.to(x.dtype))), array(out)
        affine = _affine(x, weight, bias)
        groups, eps, relu = ctx.norm.num_groups, ctx.norm.eps, ctx.relu
        sums: dict[int, np.ndarray] = {}

        def work(low: int, high: int) -> None:
            sums[low] = np.zeros((2, x.shape[1]))
            parts = (source[low:high], above[low:high], to[low:high])
            _kernels().norm_back(*parts, *affine, groups, eps, relu, sums[low])

        for_chunks(work, len(x), _share(len(x)))
        if weight is None:
            return out, None, None, None, None
        # Added up in the order of the rows: the same bits whichever thread was first.
        total = torch.from_numpy(sum(sums[low] for low in sorted(sums)))
        return out, *total.to(weight.dtype), None, None


def _gradients(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    grad: Tensor,
    norm: nn.GroupNorm,
    relu: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, weight and bias, attached to the graph."""
    y = F.group_norm(x.contiguous(), norm.num_groups, weight, bias, norm.eps)
    inputs = [part for part in (x, weight, bias) if part is not None]
    wanted = [part for part in inputs if part.requires_grad]
    found = torch.autograd.grad(F.relu(y) if relu else y, wanted, grad, create_graph=True)
    by_id = dict(zip(map(id, wanted), found, strict=True))
    return tuple(None if part is None else by_id.get(id(part)) for part in (x, weight, bias))


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    one, zero = torch.ones(x.shape[1]), torch.zeros(x.shape[1])
    parts = (one if weight is None else weight, zero if bias is None else bias)
    scale, offset = (part.detach().float().contiguous().numpy() for part in parts)
    return scale, offset


def _share(rows: int) -> int:
    """Return the rows of one thread, a multiple of `GRAIN`."""
    threads = torch.get_num_threads()
    return max(high - low for low, high in chunks(rows, max(rows, GRAIN), threads))
