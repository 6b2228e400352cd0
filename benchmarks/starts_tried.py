"""Starts of serialized solves that were tried: what each predicts from some solved draws.

`previous`, `clean` and the linear prediction (`deqcert.smoothing.predictor`) are in the package;
the others are kept here, so that the comparison can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deqcert.models import EquilibriumModel
from deqcert.models.trees import leaves
from deqcert.smoothing.predictor import LinearPredictor
from deqcert.solvers import SolverSpec, State, map_tree, select_rows, solve
from deqcert.solvers.state import Layout

RIDGE = 0.3
"""Ridge of the shared Jacobian, as a share of the mean squared residual; the best of several."""


def repeated(state: State, rows: int) -> State:
    """Return a one-row state once per row."""
    return map_tree(lambda part: part.expand(rows, *part.shape[1:]).contiguous(), state)


def mean_of(state: State) -> State:
    """Return the mean over the rows, as one row."""
    return map_tree(lambda part: part.mean(0, keepdim=True), state)


def flat(state: State) -> Tensor:  # (rows, features)
    """Return a state as one matrix."""
    return Layout.of(state).flatten(state)


def starts(
    model: EquilibriumModel,
    clean: Tensor,  # (C, H, W)
    seen: Any,  # injections of the draws that have been solved
    solved: State,  # their fixed points
    new: Any,  # injections of the draws to come
    warmup: SolverSpec,
) -> dict[str, State]:
    """Return the start of every new draw by each rule."""
    rows = len(leaves(new)[0])
    past = len(leaves(seen)[0])
    injection = model.inject(clean[None])
    at_clean = solve(model.cell, model.initial_state(injection), injection, spec=warmup).state
    near = torch.cdist(_pixels(new), _pixels(seen)).argmin(1)
    return {
        "model's own": model.initial_state(new),
        "previous": select_rows(solved, torch.arange(rows) % past),
        "clean": repeated(at_clean, rows),
        "mean": repeated(mean_of(solved), rows),
        "nearest": select_rows(solved, near),
        "linear": LinearPredictor(seen, solved)(new),
    }


class SharedJacobian:
    """Quasi-Newton steps from the mean, whose secant pairs all draws of an image share.

    With error e = z* - z and residual r = f(z) - z of the solved draws at the mean, a new residual
    is written in theirs by ridge regression; the same weights of e - r are added to its Picard
    step. (For a linear cell with as many pairs as unknowns this is Newton's method.)
    """

    def __init__(self, model: EquilibriumModel, seen: Any, solved: State) -> None:
        at = repeated(mean_of(solved), len(leaves(seen)[0]))
        self.cell = model.cell
        value = model.cell(at, seen)
        self.residuals = flat(value) - flat(at)
        self.missing = flat(solved) - flat(value)
        gram = (self.residuals @ self.residuals.T).double()
        gram.diagonal().add_(RIDGE * gram.diagonal().mean())
        self.inverse = torch.linalg.inv(gram).float()

    def __call__(self, state: State, injection: Any) -> State:
        """Return the state after one cell evaluation and a shared step."""
        value = self.cell(state, injection)
        layout = Layout.of(value)
        rows = layout.flatten(value)
        weights = (rows - layout.flatten(state)) @ self.residuals.T @ self.inverse
        return layout.unflatten(rows + weights @ self.missing)


def steps_of(
    step: Callable[[State, Any], State], state: State, injection: Any, count: int
) -> list[State]:
    """Return the start and the states after 1..count steps."""
    found = [state]
    for _ in range(count):
        found.append(step(found[-1], injection))
    return found


def _pixels(injection: Any) -> Tensor:  # (rows, features)
    return torch.cat([part.flatten(1) for part in leaves(injection)], dim=1)
