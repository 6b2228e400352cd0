"""L2 certificates of monotone DEQs from their Lipschitz constant (Pabbaraju et al. 2021)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from deqcert.deterministic.record import DeterministicCertificate
from deqcert.deterministic.subject import SHRINK, checked, frozen
from deqcert.models import EquilibriumModel, solve_rows
from deqcert.solvers import SolverSpec


class LipschitzCertifier:
    """Certifies that no L2 perturbation below the radius changes the class.

    **Guarantee** (THEORY 6.1). With I - W >= m I, x -> z* is ||U|| / m Lipschitz, the 1 / std of
    standardising included in ||U||. If the equilibrium can move by `room` before its class could
    change, R = room m / ||U||. The room is that of an inexact state less its proved distance to
    the exact equilibrium, so no solve is taken for exact.

    Args:
        model: A `MonDEQ`.
        solver: How states are found; a worse solve gives smaller radii, never wrong ones.

    Raises:
        ConfigurationError: Not a monotone DEQ.
    """

    def __init__(self, model: EquilibriumModel, *, solver: str = "picard:500:1e-7") -> None:
        self.model, self.reference = frozen(model)
        self.solver = SolverSpec.parse(solver)

    @cached_property
    def lipschitz(self) -> float:
        """Upper bound of the Lipschitz constant of x -> z*, L2, pixel units."""
        return self.model.source.exact().norm / self.model.proof.operator.m / SHRINK

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
        began = time.perf_counter()
        x = checked(self.model, images)
        _, solution = solve_rows(self.model, x, self.solver)
        assert isinstance(solution.state, Tensor)
        with torch.no_grad():
            proof = self.model.prove(solution.state, self.model.inject(x))
        radius = (proof.room / self.lipschitz * SHRINK).clamp_min(0.0)
        facts = {
            **self.model.proof_facts(),
            "lipschitz": self.lipschitz,
            "solver": str(self.solver),
        }
        seconds = (time.perf_counter() - began) / len(x)
        return [
            DeterministicCertificate(
                prediction=label if label >= 0 else None,
                radius=float(radius[row]) if label >= 0 else 0.0,
                norm="L2",
                method="lipschitz",
                reference=self.reference,
                domain="all",
                index=row if indices is None else int(indices[row]),
                distance=float(proof.distance[row]),
                facts=facts,
                cell_evaluations=int(solution.cell_evaluations[row]) + 1,
                seconds=seconds,
            )
            for row, label in enumerate(proof.label.tolist())
        ]
