"""Linf certificates of monotone DEQs by interval bounds (Wei, Kolter 2022)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from deqcert.certificate import DeterministicCertificate
from deqcert.deterministic.boxes import BoxSystem
from deqcert.deterministic.subject import BATCH_SIZE, Subject, numbered
from deqcert.errors import ConfigurationError
from deqcert.models import EquilibriumModel

PIXELS, ALL = "pixels", "all"


@dataclass(frozen=True, kw_only=True)
class IntervalSettings:
    """What decides a certificate besides model and image; plain JSON types.

    Attributes:
        largest: Radii are looked for up to this one, > 0, pixel units.
        resolution: To how much the largest certifiable radius is found, > 0, below `largest`.
        steps: Forward-backward steps of the doubled system, >= 1; fewer give smaller radii.
        domain: ``pixels``: certify against images with pixels in [0, 1] alone; ``all``.

    Raises:
        ConfigurationError: A setting out of range.
    """

    largest: float = 0.5
    resolution: float = 1e-4
    steps: int = 50
    domain: str = PIXELS

    def __post_init__(self) -> None:
        if not 0 < self.resolution < self.largest < math.inf:
            raise ConfigurationError(
                "largest and resolution must be > 0, the resolution below the largest, but got "
                f"{self.largest} and {self.resolution}"
            )
        if type(self.steps) is not int or self.steps < 1:
            raise ConfigurationError(f"steps must be an integer >= 1, but got {self.steps!r}")
        if self.domain not in (PIXELS, ALL):
            raise ConfigurationError(f"domain must be {PIXELS} or {ALL}, but got {self.domain!r}")

    @property
    def halvings(self) -> int:
        """How often the bisection halves [0, largest] until it is at most `resolution` wide."""
        width, count = self.largest, 0
        while width > self.resolution:
            width, count = 0.5 * width, count + 1
        return count

    @property
    def cell_evaluations(self) -> int:
        """Cell evaluations of one image, those of the doubled system counted twice."""
        # The leading class, the box of radius 0, and one box per halving.
        return 2 * self.steps * (self.halvings + 2)


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
        batch_size: Images computed at once, in [1, 400]; hardware only, changes no certificate.

    Raises:
        ConfigurationError: Not a monotone DEQ with that constraint, or a setting out of range.
    """

    def __init__(
        self,
        model: EquilibriumModel,
        *,
        largest: float = IntervalSettings.largest,
        resolution: float = IntervalSettings.resolution,
        within_pixels: bool = True,
        steps: int = IntervalSettings.steps,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        domain = PIXELS if within_pixels else ALL
        self.settings = IntervalSettings(
            largest=float(largest), resolution=float(resolution), steps=steps, domain=domain
        )
        self.subject = Subject(model, method="interval", domain=domain, batch_size=batch_size)
        self.model = self.subject.model
        if self.model.config.constraint != "absolute":
            raise ConfigurationError(
                "interval bounds need I - abs(W) >= m I: a MonDEQ with constraint='absolute', such "
                "as mondeq-ibp"
            )
        self._system = BoxSystem(self.model)

    @property
    def configuration(self) -> dict[str, Any]:
        """Claim, settings and weights digest: what must agree for two runs to be one run."""
        return {**self.subject.claim, **asdict(self.settings)}

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What every certificate of this model rests on, as JSON can hold it."""
        settings = self.settings
        own = {
            "steps": settings.steps,
            "largest": settings.largest,
            "resolution": settings.resolution,
        }
        return {**self._system.facts(), **own}

    @torch.no_grad()
    def certified(
        self,
        images: Tensor,  # (B, C, H, W), pixels in [0, 1]
        labels: Tensor,  # (B,)
        radius: float | Tensor,  # one, or one per image
    ) -> Tensor:  # (B,) bool
        """Return for which images all of the box around them has the given class."""
        x = self.subject.checked(images)
        return self._lead(x, labels, torch.as_tensor(radius).double())[0] > 0

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
        batches = self.subject.batches(self.subject.checked(images))
        return numbered([c for x, count in batches for c in self._certify(x, count)], indices)

    @torch.no_grad()
    def _certify(self, x: Tensor, count: int) -> list[DeterministicCertificate]:
        """Certify the first `count` of a padded batch."""
        began = time.perf_counter()
        label = self._system.leading(x, self.settings.steps)
        lead, distance = self._lead(x, label, torch.zeros(len(x), dtype=torch.float64))
        proved = lead > 0
        radius = self._bisected(x, label)
        facts = self.facts
        seconds = (time.perf_counter() - began) / count
        return [
            self.subject.certificate(
                label=int(label[row]) if proved[row] else -1,
                radius=float(radius[row]),
                distance=float(distance[row]),
                facts=facts,
                cell_evaluations=self.settings.cell_evaluations,
                seconds=seconds,
            )
            for row in range(count)
        ]

    def _bisected(self, x: Tensor, label: Tensor) -> Tensor:  # (B,)
        """Return the largest radius found to be certified; 0 where none above it is."""
        low = torch.zeros(len(x), dtype=torch.float64)
        high = torch.full_like(low, self.settings.largest)
        for _ in range(self.settings.halvings):
            middle = 0.5 * (low + high)
            holds = self._lead(x, label, middle)[0] > 0
            low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
        return low

    def _lead(self, x: Tensor, label: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least lead of `label` in the box, a lower bound, and the boxes' distance."""
        radius = radius.expand(len(x)).view(-1, *[1] * (x.ndim - 1))
        # Rounding of the ends is covered by the system's own slack on standardised pixels.
        low, high = x - radius, x + radius
        if self.settings.domain == PIXELS:
            low, high = low.clamp_min(0.0), high.clamp_max(1.0)
        return self._system.lead(low, high, label, self.settings.steps)
