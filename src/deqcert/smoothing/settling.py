"""Serialized labels by prediction: solve on only where the lead is not clear yet."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from deqcert.models.rows import solve_rows, start_rows
from deqcert.smoothing.chains import Serialization
from deqcert.smoothing.classifier import Labels, ReferenceClassifier, labels_of
from deqcert.smoothing.predictor import LinearPredictor
from deqcert.smoothing.spent import Spent
from deqcert.solvers import Solution, SolverSpec, State, select_rows

FIT_ROWS = 64
"""Noisy copies the prediction is fitted to; 20 do nearly as well, and they are solved once."""

ROUNDS = 3
"""Warm solves that a draw without a clear lead gets at most."""


@dataclass(frozen=True)
class Fit:
    """What one image's prediction knows; it may be sent to other processes.

    Attributes:
        predictor: The linear map; None where no fit row could be solved.
        thresholds: Per round, the largest change of a fit row's lead that was still to come.
    """

    predictor: LinearPredictor | None
    thresholds: tuple[float, ...]


class Settling:
    """Labels from one image's prediction: the linear map, and how far leads still move after it.

    A draw's label is settled after so many rounds (0: the prediction alone) when its lead is above
    the largest change that any fit row's lead still had to go through there.

    Args:
        classifier: The reference classifier.
        serial: Warm solver of a round.
        fit: What `fitted` found.
    """

    def __init__(self, classifier: ReferenceClassifier, serial: SolverSpec, fit: Fit) -> None:
        self.classifier = classifier
        self.serial = serial
        self.fit = fit

    def measured(self, images: Tensor, goal: Labels, spent: Spent) -> tuple[float, ...]:
        """Return, per round, the largest change of a fit row's lead that was still to come."""
        found, solution = self._predicted(images)
        thresholds = []
        for done in range(ROUNDS):
            both = (goal.label >= 0) & (found.label >= 0)
            lead = np.where(found.label == goal.label, goal.lead, -goal.lead)
            change = np.abs(found.lead - lead)[both]
            # Without a row to judge by, no prediction is trusted.
            thresholds.append(float(change.max()) if len(change) else float("inf"))
            if done + 1 < ROUNDS:
                found, solution = self._solved(images, solution.state)
                spent.add(solution, self.serial)
        return tuple(thresholds)

    def labelled(self, images: Tensor) -> tuple[Labels, Solution]:  # images: (rows, C, H, W)
        """Return labels, and what was spent on each row; no states."""
        images = images.to(device=self.classifier.device, dtype=self.classifier.dtype)
        found, solution = self._predicted(images)
        rows, state = np.arange(len(images)), solution.state
        solution = replace(solution, state=())  # nobody asks where a settled draw has come to
        for threshold in self.fit.thresholds:
            unclear = np.flatnonzero(found.lead[rows] <= threshold)
            if not len(unclear):
                break
            rows = rows[unclear]
            places = torch.from_numpy(rows).to(images.device)
            start = select_rows(state, torch.from_numpy(unclear).to(images.device))
            some, solved = self._solved(images[places], start)
            found.label[rows], found.lead[rows] = some.label, some.lead
            state = solved.state
            solution = solution.continued(places, replace(solved, state=()))
        return found, solution

    def _predicted(self, images: Tensor) -> tuple[Labels, Solution]:
        model = self.classifier.model
        predictor = self.fit.predictor
        start = model.initial_state if predictor is None else predictor
        logits, state = start_rows(model, images, start)
        none = torch.zeros(len(images), dtype=torch.int32, device=images.device)
        solution = Solution(
            state=state,
            status=none.to(torch.uint8),
            steps=none,
            residual=torch.full_like(none, torch.inf, dtype=torch.float32),
            cell_evaluations=none.clone(),
            rows_evaluated=0,
        )
        return labels_of(logits, solution), solution

    def _solved(self, images: Tensor, state: State) -> tuple[Labels, Solution]:
        logits, solution = solve_rows(self.classifier.model, images, self.serial, state0=state)
        return labels_of(logits, solution), solution


def fitted(
    classifier: ReferenceClassifier,
    images: Tensor,  # (rows, C, H, W)
    how: Serialization,
    spent: Spent,
) -> Fit:
    """Fit the prediction of one image to noisy rows, which have a noise stage of their own.

    Args:
        classifier: The reference classifier.
        images: The noisy fit rows; the warm-up solver solves them.
        how: Solvers.
        spent: Account of the fit.
    """
    moved = images.to(device=classifier.device, dtype=classifier.dtype)
    goal, solution = classifier.labelled(moved, spec=how.warmup)
    spent.add(solution, how.warmup)
    kept = torch.from_numpy(np.flatnonzero(goal.label >= 0)).to(classifier.device)
    predictor: LinearPredictor | None = None
    if len(kept):
        with torch.no_grad():
            injection = classifier.model.inject(moved[kept])
            predictor = LinearPredictor(injection, select_rows(solution.state, kept))
    settling = Settling(classifier, how.serial, Fit(predictor, ()))
    return Fit(predictor, settling.measured(moved, goal, spent))


class PredictedSolves:
    """Serialized labels of one image from its fitted prediction; batches do not matter to it."""

    def __init__(self, settling: Settling, spent: Spent) -> None:
        self.settling = settling
        self.spent = spent

    def advance(
        self,
        images: Tensor,  # (high - low, C, H, W)
        low: int,
        high: int,
    ) -> np.ndarray:  # (high - low,) int16
        """Return the labels of some draws."""
        del low, high
        labels, solution = self.settling.labelled(images)
        self.spent.add(solution, self.settling.serial)
        return labels.label.astype(np.int16)

    def end_batch(self) -> None:
        """Do nothing: draws learn nothing from each other."""
