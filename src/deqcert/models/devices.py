"""Devices by name, refused in one line where they cannot be used."""

from __future__ import annotations

import torch

from deqcert.errors import ConfigurationError


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return the device called `device`, on which numbers can be made; None means the CPU.

    Raises:
        ConfigurationError: No such device, or not on this machine or in this PyTorch.
    """
    try:
        found = torch.device("cpu" if device is None else device)
    except RuntimeError as error:
        raise ConfigurationError(f"device {str(device)!r} is none that PyTorch knows") from error
    try:
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError) as error:  # PyTorch raises either, by kind of device
        why = str(error).strip().partition("\n")[0]
        raise ConfigurationError(f"device {str(device)!r} cannot be used here: {why}") from error
    return found
