"""What both certificates start from: a monotone model frozen in float64, and images checked."""

from __future__ import annotations

import torch
from torch import Tensor

from deqcert.certificate import Reference
from deqcert.errors import ConfigurationError, InputError
from deqcert.models import EquilibriumModel, MonDEQ, inference_copy, weights_digest

SHRINK = 1.0 - 2.0**-50
"""Factor that outweighs the rounding of a few float64 operations on a positive number."""


def frozen(model: EquilibriumModel) -> tuple[MonDEQ, Reference]:
    """Return a float64 inference copy and the record of the classifier that certificates are about.

    Raises:
        ConfigurationError: Not a monotone DEQ.
    """
    if not isinstance(model, MonDEQ):
        raise ConfigurationError(
            f"deterministic certificates are for monotone DEQs, but got a {type(model).__name__}"
        )
    reference = Reference(
        weights_digest=weights_digest(model), solver="equilibrium", precision="exact", margin=0.0
    )
    folded = inference_copy(model, dtype=torch.float64)
    assert isinstance(folded, MonDEQ)
    return folded, reference


def checked(model: MonDEQ, images: Tensor) -> Tensor:  # (B, C, H, W) float64
    """Return the images in float64.

    Raises:
        InputError: Wrong shape or type, not finite, or a pixel outside [0, 1].
    """
    model.check_images(images)
    if not bool(torch.isfinite(images).all()):
        raise InputError("images must be finite, but hold NaN or infinity")
    low, high = float(images.min()), float(images.max())
    if low < 0.0 or high > 1.0:
        raise InputError(f"pixels must lie in [0, 1], but range over [{low:.6g}, {high:.6g}]")
    return images.detach().double().cpu()
