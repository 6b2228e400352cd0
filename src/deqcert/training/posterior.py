"""What the label of a noisy image can be known to be: the exact posterior of a mixture.

A noisy copy of one digit often looks more like another, and its own label is then a misleading
target. If clean images were drawn from the training images (and small changes of them), the class
of x = image + N(0, sigma^2 I) would have the posterior

    P(c | x) = sum over images i of class c of exp(-|x - x_i|^2 / 2 s^2), normalised over c,

with s^2 = sigma^2 + bandwidth^2, the bandwidth allowing for what the training images miss. As
targets these probabilities carry far less variance than single labels. They use the training images
alone. Sensible where nearest images mean something: small images, strong noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from deqcert.errors import ConfigurationError
from deqcert.training.augment import AugmentSpec, augment


@dataclass(frozen=True, kw_only=True)
class PosteriorSpec:
    """How the mixture is made.

    Attributes:
        share: Share of the posterior in the targets, in [0, 1]; the rest is the image's own label.
        bandwidth: Added deviation, pixel units, >= 0.
        copies: Randomly changed copies of every training image in the mixture, >= 1 (without
            augmentation the images themselves count once).

    Raises:
        ConfigurationError: A value out of range.
    """

    share: float = 1.0
    bandwidth: float = 0.2
    copies: int = 4

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ConfigurationError(f"posterior share must lie in [0, 1], but got {self.share}")
        if not 0.0 <= self.bandwidth < float("inf"):
            raise ConfigurationError(f"posterior bandwidth must be >= 0, but got {self.bandwidth}")
        if type(self.copies) is not int or self.copies < 1:
            raise ConfigurationError(
                f"posterior copies must be an integer >= 1, but got {self.copies!r}"
            )


_MOST_BYTES = 4 * 1024**3


def require_small(
    count: int, shape: tuple[int, ...], spec: PosteriorSpec, changes: AugmentSpec | None
) -> None:
    """Refuse `count` training images of `shape` that would not fit in memory with their copies.

    Raises:
        ConfigurationError: They take more than 4 GiB.
    """
    centres = count * (spec.copies if changes is not None else 1)
    size = 4 * centres * int(np.prod(shape))
    if size > _MOST_BYTES:
        raise ConfigurationError(
            f"posterior targets compare every noisy image with all training images and their "
            f"copies, {centres} here, which take {size / 1024**3:.1f} GiB; at most "
            f"{_MOST_BYTES // 1024**3} are allowed: leave posterior out for data of this size"
        )


class MixturePosterior:
    """The posterior under a mixture of Gaussians around clean images.

    Args:
        images: Clean images. shape: (N, C, H, W)
        labels: Their classes, int64. shape: (N,)
        num_classes: Classes.
        deviation: Deviation s of every component, > 0.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, *, num_classes: int, deviation: float
    ) -> None:
        flat = images.flatten(1)
        self._centres = flat.T.contiguous() / deviation**2  # (D, N)
        self._offsets = flat.square().sum(dim=1) / (2.0 * deviation**2)  # (N,)
        self._classes = F.one_hot(labels, num_classes).to(flat.dtype)  # (N, classes)

    def __call__(self, noisy: Tensor) -> Tensor:  # (B, C, H, W) -> (B, classes)
        """Return the class probabilities of noisy images; |x|^2 cancels and is left out."""
        weights = (noisy.flatten(1) @ self._centres - self._offsets).softmax(dim=1)
        return weights @ self._classes


def make_posterior(
    images: Tensor,  # (N, C, H, W)
    labels: Tensor,  # (N,)
    *,
    num_classes: int,
    sigma: float,
    spec: PosteriorSpec,
    changes: AugmentSpec | None,
    generator: np.random.Generator,
) -> MixturePosterior:
    """Return the posterior under noise of `sigma` for these images and small changes of them.

    Raises:
        ConfigurationError: sigma and bandwidth are both 0.
    """
    deviation = float(np.hypot(sigma, spec.bandwidth))
    if deviation == 0.0:
        raise ConfigurationError("a posterior needs sigma or bandwidth above 0")
    if changes is not None:
        copies = [augment(images, changes, generator) for _ in range(spec.copies)]
        images, labels = torch.cat(copies), labels.repeat(spec.copies)
    return MixturePosterior(images, labels, num_classes=num_classes, deviation=deviation)
