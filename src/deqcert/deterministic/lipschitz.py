"""L2 certificates of monotone DEQs from their Lipschitz constant (Pabbaraju et al. 2021)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from deqcert.certificate import DeterministicCertificate
from deqcert.deterministic.subject import BATCH_SIZE, SHRINK, Subject, numbered
from deqcert.models import EquilibriumModel, solve_rows
from deqcert.solvers import SolverSpec


@dataclass(frozen=True, kw_only=True)
class LipschitzSettings:
    """What decides a certificate besides model and image; plain JSON types.

    Attributes:
        solver: How states are found; a worse solve gives smaller radii, never wrong ones.

    Raises:
        ConfigurationError: No solver has this form.
        UnknownNameError: An unknown solver.
    """

    solver: str = "picard:500:1e-7"

    def __post_init__(self) -> None:
        object.__setattr__(self, "solver", str(SolverSpec.parse(self.solver)))


class LipschitzCertifier:
    """Certifies that no L2 perturbation below the radius changes the class.

    **Guarantee** (THEORY 6.1). With I - W >= m I, x -> z* is ||U|| / m Lipschitz, the 1 / std of
    standardising included in ||U||. If the equilibrium can move by `room` before its class could
    change, R = room m / ||U||. The room is that of an inexact state less its proved distance to
    the exact equilibrium, so no solve is taken for exact.

    Args:
        model: A `MonDEQ`.
        solver: How states are found; a worse solve gives smaller radii, never wrong ones.
        batch_size: Images computed at once, in [1, 400]; hardware only, changes no certificate.

    Raises:
        ConfigurationError: Not a monotone DEQ, or a setting out of range.
        UnknownNameError: An unknown solver.
    """

    def __init__(
        self,
        model: EquilibriumModel,
        *,
        solver: str | SolverSpec = LipschitzSettings.solver,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self.settings = LipschitzSettings(solver=str(solver))
        self.subject = Subject(model, method="lipschitz", domain="all", batch_size=batch_size)
        self.model = self.subject.model

    @property
    def configuration(self) -> dict[str, Any]:
        """Claim, settings and weights digest: what must agree for two runs to be one run."""
        return {**self.subject.claim, **asdict(self.settings)}

    @cached_property
    def lipschitz(self) -> float:
        """Upper bound of the Lipschitz constant of x -> z*, L2, pixel units."""
        model = self.model
        return model.source.exact().norm / model.proof.operator.m / SHRINK

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What every certificate of this model rests on, as JSON can hold it."""
        own = {"lipschitz": self.lipschitz, **asdict(self.settings)}
        return {**self.model.proof_facts(), **own}

    def certify(
        self,
        images: Tensor,  # (B, C, H, W), pixels in [0, 1]
        *,
        indices: Sequence[int] | None = None,
    ) -> list[DeterministicCertificate]:
        """Return one certificate per image.

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
        model = self.model
        _, solution = solve_rows(model, x, self.settings.solver)
        assert isinstance(solution.state, Tensor)
        proof = model.prove(solution.state, model.inject(x))
        radius = (proof.room / self.lipschitz * SHRINK).clamp_min(0.0)
        facts = self.facts
        seconds = (time.perf_counter() - began) / count
        return [
            self.subject.certificate(
                label=int(proof.label[row]),
                radius=float(radius[row]),
                distance=float(proof.distance[row]),
                facts=facts,
                cell_evaluations=int(solution.cell_evaluations[row]) + 1,
                seconds=seconds,
            )
            for row in range(count)
        ]
