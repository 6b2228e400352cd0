"""What both certifiers share: a monotone model frozen in float64, checked images, even batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from deqcert.certificate import DETERMINISTIC, NORMS, DeterministicCertificate, Reference
from deqcert.errors import ConfigurationError, InputError
from deqcert.models import EquilibriumModel, MonDEQ, inference_copy, weights_digest
from deqcert.models.families import architecture_of
from deqcert.models.rows import BATCH_SIZES

SHRINK = 1.0 - 2.0**-50
"""Factor that outweighs the rounding of a few float64 operations on a positive number."""

EXACT, PRECISION = "equilibrium", "exact"
"""Solver and precision of the classifier: no solve, the equilibrium of the real model."""

BATCH_SIZE = 64


class Subject:
    """The classifier that certificates are about, by one method.

    Args:
        model: A `MonDEQ`; the certifier works on its own inference copy.
        method: ``lipschitz`` or ``interval``.
        domain: ``all`` perturbed images, or ``pixels``: those with pixels in [0, 1].
        batch_size: Images computed at once, in [1, 400].

    Raises:
        ConfigurationError: Not a monotone DEQ, or a batch size out of range.
    """

    def __init__(
        self, model: EquilibriumModel, *, method: str, domain: str, batch_size: int
    ) -> None:
        if not isinstance(model, MonDEQ):
            name = type(model).__name__
            raise ConfigurationError(
                f"deterministic certificates are for monotone DEQs, but got a {name}"
            )
        if type(batch_size) is not int or not 1 <= batch_size <= BATCH_SIZES[-1]:
            raise ConfigurationError(
                f"batch_size must be an integer in [1, {BATCH_SIZES[-1]}], but got {batch_size!r}"
            )
        folded = inference_copy(model, dtype=torch.float64, device="cpu")
        assert isinstance(folded, MonDEQ)
        self.model = folded
        self.method, self.domain, self.batch_size = method, domain, batch_size
        self.architecture = architecture_of(model)
        self.reference = Reference(
            weights_digest=weights_digest(model), solver=EXACT, precision=PRECISION, margin=0.0
        )

    @property
    def claim(self) -> dict[str, Any]:
        """What is claimed, of which weights, as a run's configuration says it."""
        return {
            "method": self.method,
            "norm": NORMS[self.method],
            "domain": self.domain,
            "guarantee": DETERMINISTIC,
            "reference": EXACT,
            "weights_digest": self.reference.weights_digest,
            "architecture": self.architecture,
        }

    def checked(self, images: Tensor) -> Tensor:  # (B, C, H, W) float64
        """Return the images in float64.

        Raises:
            InputError: Wrong shape or type, not finite, or a pixel outside [0, 1].
        """
        self.model.check_images(images)
        if not bool(torch.isfinite(images).all()):
            raise InputError("images must be finite, but hold NaN or infinity")
        low, high = float(images.min()), float(images.max())
        if low < 0.0 or high > 1.0:
            raise InputError(f"pixels must lie in [0, 1], but range over [{low:.6g}, {high:.6g}]")
        return images.detach().double().cpu()

    def batches(self, x: Tensor) -> Iterator[tuple[Tensor, int]]:  # (B, C, H, W)
        """Yield padded batches, and how many rows of each are real.

        Kernels round differently for some batch shapes: in a few even sizes, a row's bits depend
        on the row alone (`deqcert.models.rows`), so a record can be made again from its image.
        """
        for part in x.split(self.batch_size):
            count = len(part)
            missing = next(size for size in BATCH_SIZES if size >= count) - count
            yield torch.cat([part, part[:1].expand(missing, *part.shape[1:])]), count

    def certificate(
        self,
        *,
        label: int,
        radius: float,
        distance: float,
        facts: Mapping[str, Any],
        cell_evaluations: int,
        seconds: float,
    ) -> DeterministicCertificate:
        """Return the certificate of one image, not numbered yet; a `label` below 0 means none."""
        return DeterministicCertificate(
            prediction=label if label >= 0 else None,
            radius=radius if label >= 0 else 0.0,
            norm=NORMS[self.method],
            method=self.method,
            reference=self.reference,
            domain=self.domain,
            index=0,
            distance=distance,
            facts=facts,
            cell_evaluations=cell_evaluations,
            seconds=seconds,
        )


def numbered(
    certificates: Sequence[DeterministicCertificate], indices: Sequence[int] | None
) -> list[DeterministicCertificate]:
    """Return the certificates with their numbers in a data set; None counts from 0."""
    numbers = range(len(certificates)) if indices is None else indices
    return [
        replace(certificate, index=int(index))
        for certificate, index in zip(certificates, numbers, strict=True)
    ]
