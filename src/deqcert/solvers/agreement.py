"""A look at what a compiler made for a GPU that no test has seen, before a solve uses it."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from deqcert.errors import PerformanceWarning

_FARTHEST = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float64: 1e-6}
"""Relative distance, of wrong code and not of rounding."""
_PAIRS, _ROWS, _WIDTH = 6, 5, 2048

_found: dict[tuple[torch.device, torch.dtype], bool] = {}


def is_known_gpu(device: torch.device) -> bool:
    """Return whether a device is a GPU of those that kernels are compiled for in the tests."""
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def agree(kernels: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether kernels give what PyTorch does; the first call of each kind finds out.

    Args:
        kernels: `gpu_rows`.
        device: The GPU.
        dtype: Of rows; float64 stands for systems of equations.

    Warns:
        PerformanceWarning: They fail, or give something else.
    """
    key = (device, dtype)
    if key not in _found:
        if _is_recorded(device):  # nothing may wait for the device now
            return False
        why = what_is_wrong(kernels, device, dtype)
        _found[key] = not why
        if why:
            warnings.warn(
                f"sums over rows on {device} are computed by PyTorch, not by Triton: {why}",
                PerformanceWarning,
                stacklevel=2,
            )
    return _found[key]


def _is_recorded(device: torch.device) -> bool:
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


@torch.no_grad()
def what_is_wrong(kernels: Any, device: torch.device, dtype: torch.dtype) -> str:
    """Return why kernels cannot be used, or nothing: some random rows tell."""
    look = _look_at_systems if dtype == torch.float64 else _look_at_rows
    try:
        distances = [_distance(*pair) for pair in look(kernels, device, dtype)]
        farthest = float(torch.tensor(distances).max())  # NaN if any is
    except Exception as error:  # a compiler or its tools may fail in many ways
        return str(error).strip().partition("\n")[0] or type(error).__name__
    if farthest <= _FARTHEST[dtype]:
        return ""
    return f"the two differ by {farthest:.1e} of their size"


Pair = tuple[Tensor, Tensor]
"""What was found, and what it should be."""


def _look_at_rows(kernels: Any, device: torch.device, dtype: torch.dtype) -> list[Pair]:
    window = _random(_PAIRS, _ROWS, _WIDTH).to(device, dtype)
    exact, shares = window.double(), _random(_PAIRS, _ROWS).to(device)
    products, changes = (exact.new_full((n, _ROWS), torch.nan) for n in (_PAIRS, 2))
    total = torch.full_like(window[0], torch.nan)
    kernels.dots(window, 1, products)
    kernels.changes(window[0], window[1], changes)
    kernels.combine(shares, list(window), total)
    x, y = exact[:2]
    return [
        (products, (exact * exact[1]).sum(-1)),
        (changes, torch.stack([(y - x).square().sum(-1), y.square().sum(-1)])),
        (total, (exact * shares[:, :, None]).sum(0)),
    ]


def _look_at_systems(kernels: Any, device: torch.device, dtype: torch.dtype) -> list[Pair]:
    residuals = _random(_PAIRS, 4 * _PAIRS, _ROWS).to(device, dtype)
    gram = (residuals[:, None] * residuals[None]).sum(2)
    ridge, weights = 1e-2, gram.new_full((_PAIRS, _ROWS), torch.nan)
    kernels.eliminate(gram, ridge, torch.finfo(torch.float32).eps, weights)
    # Weights that sum to 1, and whose images under the matrix are all the same.
    images = (gram * weights[None]).sum(1) + ridge * weights
    return [
        (weights.sum(0), torch.ones_like(weights[0])),
        (images, images.mean(0).expand_as(images)),
    ]


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())
