"""Devices by name, refused in one line where they cannot be used; and how they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from deqcert.errors import ConfigurationError


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return the device called `device`, on which numbers can be made; None means the CPU.

    Raises:
        ConfigurationError: No such device, or not on this machine or in this PyTorch.
    """
    try:
        found = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise ConfigurationError(f"device {str(device)!r} is none that PyTorch knows") from error
    try:
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError) as error:  # PyTorch raises either, by kind of device
        why = str(error).strip().partition("\n")[0]
        raise ConfigurationError(f"device {str(device)!r} cannot be used here: {why}") from error
    return found


@contextmanager
def named_precision(device: torch.device) -> Iterator[None]:
    """Compute in the types that tensors have, whatever surrounds the call.

    A certificate names the precision of its classifier (THEORY 1.1). `torch.autocast` would be
    another one, and so would TF32 for float32. PyTorch's switches for the latter are those of a
    process, and stay off: another thread may be in the middle of a solve.
    """
    if device.type == "cuda":
        _forbid_tf32()
    with torch.autocast(device.type, enabled=False):
        yield


def _forbid_tf32() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    if hasattr(cudnn, "conv"):  # since PyTorch 2.9 operations have switches of their own
        matmul.fp32_precision = cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"


def product_precisions() -> tuple[object, ...]:
    """Return how PyTorch multiplies float32 on GPUs, to be compared."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(cudnn, "conv"):  # the older ones fail to be read where these differ
        return matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
    return matmul.allow_tf32, cudnn.allow_tf32
