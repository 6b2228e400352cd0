"""Linf certificates of monotone DEQs by interval bounds (Wei, Kolter 2022)."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from deqcert.deterministic.boxes import BoxSystem
from deqcert.deterministic.record import DeterministicCertificate
from deqcert.deterministic.subject import checked, frozen
from deqcert.errors import ConfigurationError
from deqcert.models import EquilibriumModel


class IntervalCertifier:
    """Certifies that no Linf perturbation up to the radius changes the class.

    **Guarantee** (THEORY 6.3). With I - abs(W) >= m I the doubled system lo = relu(W+ lo + W- hi +
    b_lo), hi alike, has one solution, which encloses the equilibria of all images in the box. A
    radius is certified if the lower bound of every logit difference is positive there, after the
    proved distance of the computed boxes to the exact ones has been taken off.

    Args:
        model: A `MonDEQ` with the ``absolute`` constraint.
        largest: Radii are looked for up to this one, > 0.
        resolution: To how much the largest certifiable radius is found, > 0.
        within_pixels: Certify against images with pixels in [0, 1] alone, as published; False
            covers all.
        steps: Forward-backward steps of the doubled system, >= 1; fewer give smaller radii.

    Raises:
        ConfigurationError: Not a monotone DEQ with that constraint, or a setting out of range.
    """

    def __init__(
        self,
        model: EquilibriumModel,
        *,
        largest: float = 0.5,
        resolution: float = 1e-4,
        within_pixels: bool = True,
        steps: int = 50,
    ) -> None:
        self.model, self.reference = frozen(model)
        if self.model.config.constraint != "absolute":
            raise ConfigurationError(
                "interval bounds need I - abs(W) >= m I: a MonDEQ with constraint='absolute'"
            )
        if not (0 < resolution < largest) or steps < 1:
            raise ConfigurationError(
                "largest, resolution and steps must be positive, the resolution below the "
                f"largest, but got {largest}, {resolution}, {steps}"
            )
        self.largest, self.resolution = largest, resolution
        self.within_pixels, self.steps = within_pixels, steps
        self._system = BoxSystem(self.model)

    @torch.no_grad()
    def certified(
        self,
        images: Tensor,  # (B, C, H, W), pixels in [0, 1]
        labels: Tensor,  # (B,)
        radius: float | Tensor,  # one, or one per image
    ) -> Tensor:  # (B,) bool
        """Return for which images all of the box around them has the given class."""
        x = checked(self.model, images)
        return self._lead(x, labels, torch.as_tensor(radius).double())[0] > 0

    @torch.no_grad()
    def certify(
        self,
        images: Tensor,  # (B, C, H, W), pixels in [0, 1]
        *,
        indices: Sequence[int] | None = None,
    ) -> list[DeterministicCertificate]:
        """Return one certificate per image, its radius found by bisection.

        Args:
            images: The images.
            indices: Their numbers in a data set, for the record; None counts from 0.

        Raises:
            InputError: Wrong shape or type, not finite, or a pixel outside [0, 1].
        """
        began = time.perf_counter()
        x = checked(self.model, images)
        label = self._system.leading(x, self.steps)
        lead, distance = self._lead(x, label, torch.zeros(len(x), dtype=torch.float64))
        proved = lead > 0
        low, high = torch.zeros_like(lead), torch.full_like(lead, self.largest)
        rounds = 1
        while float((high - low).max()) > self.resolution:
            middle = 0.5 * (low + high)
            holds = self._lead(x, label, middle)[0] > 0
            low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
            rounds += 1
        facts = {**self._system.facts(), "steps": self.steps, "resolution": self.resolution}
        seconds = (time.perf_counter() - began) / len(x)
        return [
            DeterministicCertificate(
                prediction=int(label[row]) if proved[row] else None,
                radius=float(low[row]) if proved[row] else 0.0,
                norm="Linf",
                method="interval",
                reference=self.reference,
                domain="pixels" if self.within_pixels else "all",
                index=row if indices is None else int(indices[row]),
                distance=float(distance[row]),
                facts=facts,
                cell_evaluations=2 * self.steps * (rounds + 1),
                seconds=seconds,
            )
            for row in range(len(x))
        ]

    def _lead(self, x: Tensor, label: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least lead of `label` in the box, a lower bound, and the boxes' distance."""
        radius = radius.expand(len(x)).view(-1, *[1] * (x.ndim - 1))
        # Rounding of the ends is covered by the system's own slack on standardised pixels.
        low, high = x - radius, x + radius
        if self.within_pixels:
            low, high = low.clamp_min(0.0), high.clamp_max(1.0)
        return self._system.lead(low, high, label, self.steps)
