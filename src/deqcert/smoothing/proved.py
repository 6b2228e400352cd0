"""Serialized labels that are proved one by one: nothing to audit (THEORY 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from deqcert.errors import ConfigurationError
from deqcert.models import BATCH_SIZES, EquilibriumModel, ProvesLabels
from deqcert.models.trees import leaves
from deqcert.smoothing.classifier import NO_CLASS, ReferenceClassifier
from deqcert.smoothing.spent import Spent
from deqcert.smoothing.starts import make_start
from deqcert.solvers import Solution, SolverSpec, State, Status, map_state, select_rows
from deqcert.solvers.batching import padded_rows, padded_size

EXACT = "equilibrium"
"""Solver of the reference classifier of a proved certificate: none, its labels are those at z*."""


def require_proofs(model: EquilibriumModel, start: str) -> ProvesLabels:
    """Return the model, if it proves labels and `start` is a rule of chains.

    Raises:
        ConfigurationError: It is not, or it does not.
    """
    if not isinstance(model, ProvesLabels):
        raise ConfigurationError(
            "method 'proved' needs a model that proves its labels, such as a monotone DEQ, but "
            f"{type(model).__name__} does not; use standard or srs"
        )
    if start not in ("previous", "clean"):
        raise ConfigurationError(
            f"method 'proved' starts from the previous draw or the clean image, but got {start!r}"
        )
    return model


class ProvedSolves:
    """Chains whose every draw is solved until its label is proved, or up to a number of steps.

    A step is one look at the state (`ProvesLabels.prove`): it tells what is proved and moves on.

    Args:
        classifier: The classifier; its model proves labels.
        image: The clean image.
        spec: The most steps of a draw are its `max_steps`.
        start: ``previous`` or ``clean``.
        chains: Rows followed side by side.
        spent: Where costs are counted.
    """

    def __init__(
        self,
        classifier: ReferenceClassifier,
        image: Tensor,  # (C, H, W)
        *,
        spec: SolverSpec,
        start: str,
        chains: int,
        spent: Spent,
    ) -> None:
        self.classifier = classifier
        self.model = require_proofs(classifier.model, start)
        self.spec = spec
        self.spent = spent
        self.start = make_start(start, chains)
        if self.start.needs_clean:
            _, solution = self._solve(image[None], None)
            self.start.clean(solution.state)

    def advance(
        self,
        images: Tensor,  # (high - low, C, H, W)
        low: int,
        high: int,
    ) -> np.ndarray:  # (high - low,) int16
        """Solve one draw of the chains low..high-1 and return what is proved, else `NO_CLASS`."""
        labels, solution = self._solve(images, self.start.state0(low, high))
        self.start.keep(solution.state, solution.status, low, high)
        self.spent.add(solution, self.spec)  # last: until here memory may run out
        return labels

    def end_batch(self) -> None:
        """Close one batch of chains."""
        self.start.end_batch()

    @torch.no_grad()
    def _solve(
        self, images: Tensor, state0: State | None
    ) -> tuple[np.ndarray, Solution]:  # (rows,) int16
        rows = len(images)
        moved = images.to(device=self.classifier.device, dtype=self.classifier.dtype)
        injection = self._inject(moved)
        state = self.classifier.model.initial_state(injection) if state0 is None else state0
        ledger = _Ledger(state)
        place = torch.arange(rows, device=moved.device)
        for _ in range(self.spec.max_steps):
            # The few batch sizes that everything is computed in (THEORY 1.1).
            kept = torch.arange(len(place), device=place.device)
            kept = padded_rows(kept, padded_size(len(place), BATCH_SIZES))
            proof = self.model.prove(*select_rows((state, injection), kept))
            label, state = proof.label[: len(place)], _cut(proof.state, len(place))
            left = ledger.enter(place, label, state, proof.distance[: len(place)])
            if len(left) == 0:
                break
            place = place[left]
            state, injection = select_rows((state, injection), left)
        return ledger.labels.cpu().numpy().astype(np.int16), ledger.solution()

    def _inject(self, images: Tensor) -> Any:
        rows = len(images)
        padded = padded_rows(torch.arange(rows), padded_size(rows, BATCH_SIZES))
        return select_rows(self.classifier.model.inject(images[padded]), torch.arange(rows))


class _Ledger:
    """What is known of each row of a batch."""

    def __init__(self, state: State) -> None:
        first = leaves(state)[0]
        rows, device = len(first), first.device
        self.state = map_state(torch.clone, state)
        self.labels = torch.full((rows,), NO_CLASS, dtype=torch.int64, device=device)
        self.status = torch.full((rows,), int(Status.MAX_STEPS), dtype=torch.uint8, device=device)
        self.steps = torch.zeros(rows, dtype=torch.int32, device=device)
        self.residual = torch.zeros(rows, device=device)

    def enter(
        self,
        place: Tensor,  # (R,): rows looked at
        label: Tensor,  # (R,)
        state: State,  # (R, ...)
        distance: Tensor,  # (R,)
    ) -> Tensor:  # (L,): which of the R are still open
        """Record one look."""
        size = torch.stack([part.double().flatten(1).norm(dim=1) for part in leaves(state)]).norm(
            dim=0
        )
        proved, failed = label >= 0, ~(torch.isfinite(distance) & torch.isfinite(size))
        self.steps[place] += 1
        self.residual[place] = (distance / size.clamp_min(1e-30)).float()
        self.labels[place[proved]] = label[proved]
        self.status[place[proved]] = int(Status.CONVERGED)
        self.status[place[failed]] = int(Status.NONFINITE)
        for whole, part in zip(leaves(self.state), leaves(state), strict=True):
            whole[place] = part
        return (~proved & ~failed).nonzero().squeeze(1)

    def solution(self) -> Solution:
        """Return the states, and what they cost."""
        return Solution(
            state=self.state,
            status=self.status,
            steps=self.steps,
            residual=self.residual,
            cell_evaluations=self.steps.clone(),
            rows_evaluated=int(self.steps.sum()),
        )


def _cut(state: State, rows: int) -> State:
    return map_state(lambda part: part[:rows], state)
