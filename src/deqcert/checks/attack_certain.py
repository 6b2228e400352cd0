"""Attacks on deterministic certificates: PGD in their own norm, judged by the exact equilibrium."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from deqcert.checks.judge import ABSTAINED, FELL, HELD
from deqcert.checks.pgd import along, ascend, differentiable, project_linf
from deqcert.deterministic import LipschitzCertifier
from deqcert.models import EquilibriumModel
from deqcert.smoothing.noise import keyed_generator
from deqcert.solvers import SolverSpec

PGD, RANDOM = "pgd", "random"
_GRADIENT_SOLVER = "picard:100:1e-6"
# A random direction is followed until it is long enough; clipping may make it ever slower.
_FARTHEST = 1e6


class CertainAttacker:
    """Attacks one image after the other.

    The judge proves what class the exact equilibrium of a shifted image has: no draw, no doubt. It
    abstains where even a long solve leaves that open.

    Args:
        model: The run's model.
        norm: Norm of the certificates, ``L2`` or ``Linf``.
        distances: Lengths of the shifts, in units of the certified radius.
        steps: Gradient steps.
        seed: Seed of the random directions.
    """

    def __init__(
        self,
        model: EquilibriumModel,
        *,
        norm: str,
        distances: tuple[float, ...],
        steps: int,
        seed: int,
    ) -> None:
        self.norm, self.distances, self.steps, self.seed = norm, distances, steps, seed
        self.judge = LipschitzCertifier(model)
        solver = SolverSpec.parse(_GRADIENT_SOLVER)
        logits, self.gradient = differentiable(model, solver, device=torch.device("cpu"))
        # Images stay in float64: in float32 a shift within a small radius would round beyond it.
        self.logits = lambda x: logits(x.float())

    def attack(self, image: Tensor, record: dict[str, Any]) -> dict[str, Any]:
        """Return the line of one image."""
        started = time.perf_counter()
        image = image.double()
        index, certified = record["index"], record["prediction"]
        lengths = torch.tensor(self.distances, dtype=torch.float64) * record["radius"]
        shifted = {
            PGD: self._ascend(image, certified, lengths),
            RANDOM: self._random(image, index, lengths),
        }
        outcomes = [
            outcome
            for name, moved in shifted.items()
            for outcome in self._judged(name, image, moved, certified)
        ]
        clean = self.judge.certify(image[None])[0].prediction
        return {
            "index": index,
            "prediction": certified,
            "radius": record["radius"],
            "share": float(clean == certified),
            "outcomes": outcomes,
            "seconds": time.perf_counter() - started,
        }

    def _ascend(self, image: Tensor, certified: int, lengths: Tensor) -> Tensor:  # (B, C, H, W)
        return ascend(
            self.logits,
            image,
            torch.eye(self.judge.model.num_classes)[certified],
            lengths,
            lambda step: torch.zeros_like(image)[None],
            steps=self.steps,
            norm=self.norm,
        )

    def _random(self, image: Tensor, index: int, lengths: Tensor) -> Tensor:  # (B, C, H, W)
        """Return one random direction, followed to each length as far as pixels allow."""
        generator = keyed_generator(self.seed, index, "attack-direction")
        direction = torch.from_numpy(generator.standard_normal(tuple(image.shape)))
        clean = image[None].expand(len(lengths), *image.shape)
        if self.norm == "Linf":
            far = clean + direction.sign() * lengths.reshape(-1, 1, 1, 1)
            return project_linf(clean, far, lengths)
        direction = (direction / direction.norm())[None].expand(len(lengths), *image.shape)
        return along(clean, direction, lengths, most=_FARTHEST)

    def _judged(
        self, name: str, image: Tensor, moved: Tensor, certified: int
    ) -> list[dict[str, Any]]:
        found = []
        verdicts = self.judge.certify(moved)
        for distance, shifted, verdict in zip(self.distances, moved, verdicts, strict=True):
            label = verdict.prediction
            outcome = ABSTAINED if label is None else HELD if label == certified else FELL
            found.append(
                {
                    "attack": name,
                    "distance": distance,
                    "length": self._length(shifted, image),
                    "outcome": outcome,
                    "label": label,
                    "share": float(label == certified),
                }
            )
        return found

    def _length(self, moved: Tensor, image: Tensor) -> float:
        shift = moved.double() - image.double()
        return float(shift.abs().max() if self.norm == "Linf" else shift.norm())
