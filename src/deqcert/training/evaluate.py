"""How good a model is under noise, and how many steps it needs for that."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deqcert.data import Dataset
from deqcert.errors import ConfigurationError
from deqcert.models import EquilibriumModel, inference_copy, solve_rows
from deqcert.smoothing.noise import keyed_generator
from deqcert.solvers import SolverSpec, State, Status

STEPS = (1, 2, 3, 5, 8, 12, 30)
SERIAL_STEPS = (1, 2, 3)
CONVERGENCE = "anderson:30:1e-3"
SETTLED_ACCURACY = 0.0025
SETTLED_LABELS = 0.0025
_ROWS = 400


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Shares of noisy copies, each in [0, 1], unless stated otherwise.

    Attributes:
        sigma: Noise level, pixel units.
        images: Images evaluated.
        copies: Noisy copies of each.
        reference: The solver that counts as the classifier.
        accuracy: Correct labels of the reference.
        smoothed_accuracy: Images whose majority label over the copies is correct.
        accuracy_by_steps: Correct labels after k Picard steps.
        agreement_by_steps: Labels after k Picard steps equal to those after the most steps.
        residual_by_steps: Median relative residual of the state the k-th step was taken from; no
            share.
        disagreement_serial: Labels after k Picard steps from the state of the *previous* copy (of
            the same image, reached the same way) that differ from the cold reference's.
        convergence: The solver by which convergence is judged.
        converged: Copies whose residual passes its tolerance.
        steps_to_converge: Steps it takes: median, 99th percentile and maximum; no share.
    """

    sigma: float
    images: int
    copies: int
    reference: str
    accuracy: float
    smoothed_accuracy: float
    accuracy_by_steps: dict[int, float]
    agreement_by_steps: dict[int, float]
    residual_by_steps: dict[int, float]
    disagreement_serial: dict[int, float]
    convergence: str
    converged: float
    steps_to_converge: dict[str, float]

    @property
    def settled_steps(self) -> int:
        """Fewest Picard steps that are as good as the most: what a reference solve needs.

        As good: accuracy at most `SETTLED_ACCURACY` lower, and labels that differ in at most
        `SETTLED_LABELS` of the copies.
        """
        deepest = self.accuracy_by_steps[max(self.accuracy_by_steps)]
        return min(
            k
            for k, accuracy in self.accuracy_by_steps.items()
            if accuracy >= deepest - SETTLED_ACCURACY
            and self.agreement_by_steps[k] >= 1.0 - SETTLED_LABELS
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON can hold them, rounded to what they can mean."""
        values = {name: _rounded(value) for name, value in dataclasses.asdict(self).items()}
        return {**values, "settled_steps": self.settled_steps}


def evaluate(
    model: EquilibriumModel,
    data: Dataset,
    *,
    sigma: float,
    indices: Sequence[int] | NDArray[np.integer] | None = None,
    copies: int = 10,
    seed: int = 0,
    reference: SolverSpec | str | None = None,
    steps: Sequence[int] = STEPS,
    serial_steps: Sequence[int] = SERIAL_STEPS,
    convergence: SolverSpec | str = CONVERGENCE,
) -> Evaluation:
    """Measure a model on noisy copies of images, by number of steps.

    Args:
        model: The model; a folded copy of it is evaluated.
        data: The images.
        sigma: Noise level, pixel units, >= 0.
        indices: Which images; None means all.
        copies: Noisy copies of each image, >= 1.
        seed: Seed of the noise.
        reference: The solver that counts as the classifier; None means the model's own.
        steps: Numbers of Picard steps to look at, ascending.
        serial_steps: Numbers of steps of serialized solves to look at.
        convergence: Solver with a tolerance, by which convergence is judged.

    Raises:
        ConfigurationError: No images, copies or steps, or steps that do not ascend.
    """
    rows = np.arange(len(data)) if indices is None else np.asarray(indices, dtype=np.int64)
    if len(rows) == 0 or copies < 1:
        raise ConfigurationError(f"nothing to evaluate: {len(rows)} images, {copies} copies")
    if not steps or list(steps) != sorted(set(steps)) or steps[0] < 1:
        raise ConfigurationError(f"steps must ascend from 1, but got {tuple(steps)}")
    solvers = _Solvers(
        reference=SolverSpec.parse(model.solver if reference is None else reference),
        steps=tuple(steps),
        serial_steps=tuple(serial_steps),
        convergence=SolverSpec.parse(convergence),
    )
    folded = inference_copy(model)
    device = next(folded.parameters()).device
    tally = _Tally(solvers)
    for chunk, low in enumerate(range(0, len(rows), _ROWS)):
        images, labels = data.batch(rows[low : low + _ROWS])
        copied = _noisy(images, sigma, copies, seed, chunk)
        tally.add_images(folded, (part.to(device) for part in copied), labels.to(device))
    return tally.result(sigma=sigma, images=len(rows), copies=copies)


@dataclass(frozen=True, kw_only=True)
class _Solvers:
    reference: SolverSpec
    steps: tuple[int, ...]
    serial_steps: tuple[int, ...]
    convergence: SolverSpec


class _Tally:
    """What is counted, image chunk by image chunk."""

    def __init__(self, solvers: _Solvers) -> None:
        self._solvers = solvers
        self._draws = self._serial_draws = 0
        self._correct = self._smoothed = 0.0
        self._by_steps = dict.fromkeys(solvers.steps, 0.0)
        self._agree = dict.fromkeys(solvers.steps, 0.0)
        self._residuals: dict[int, list[Tensor]] = {k: [] for k in solvers.steps}
        self._differ = dict.fromkeys(solvers.serial_steps, 0.0)
        self._converged = 0.0
        self._steps: list[Tensor] = []

    def add_images(
        self,
        model: EquilibriumModel,
        copies: Iterator[Tensor],  # each (B, C, H, W)
        labels: Tensor,  # (B,)
    ) -> None:
        """Count all noisy copies of some images; a chain per image runs through them."""
        votes = torch.zeros(len(labels), model.num_classes, device=labels.device)
        chains: dict[int, State] = {}
        for x in copies:
            state, found = self._path(model, x, labels)
            logits, _ = solve_rows(model, x, self._solvers.reference)
            cold = logits.argmax(dim=1)
            self._correct += _count(cold == labels)
            votes += torch.nn.functional.one_hot(cold, model.num_classes)
            self._draws += found
            self._serial(model, x, cold, chains, state)
            self._convergence(model, x)
        self._smoothed += _count(votes.argmax(dim=1) == labels)

    def _path(self, model: EquilibriumModel, x: Tensor, labels: Tensor) -> tuple[State, int]:
        """Follow the Picard iterates and return the last one and the number of rows."""
        state, done = None, 0
        found: dict[int, Tensor] = {}
        for k in self._solvers.steps:
            logits, solution = solve_rows(model, x, SolverSpec("picard", k - done), state)
            state, done = solution.state, k
            found[k] = logits.argmax(dim=1)
            self._by_steps[k] += _count(found[k] == labels)
            self._residuals[k].append(solution.residual.cpu())
        for k, label in found.items():
            self._agree[k] += _count(label == found[done])
        assert state is not None, "there is at least one number of steps"
        return state, len(x)

    def _serial(
        self,
        model: EquilibriumModel,
        x: Tensor,
        cold: Tensor,  # (B,) labels of the reference
        chains: dict[int, State],
        state: State,
    ) -> None:
        """Take the serialized steps; the first copy starts the chains from its deepest state."""
        first = not chains
        for k in self._solvers.serial_steps:
            if first:
                chains[k] = state
                continue
            logits, solution = solve_rows(model, x, SolverSpec("picard", k), chains[k])
            chains[k] = solution.state
            self._differ[k] += _count(logits.argmax(dim=1) != cold)
        self._serial_draws += 0 if first else len(x)

    def _convergence(self, model: EquilibriumModel, x: Tensor) -> None:
        _, solution = solve_rows(model, x, self._solvers.convergence)
        self._converged += _count(solution.status == Status.CONVERGED)
        self._steps.append(solution.steps.cpu().float())

    def result(self, *, sigma: float, images: int, copies: int) -> Evaluation:
        """Return the shares."""
        steps = torch.cat(self._steps)
        serial = self._differ.items() if self._serial_draws else ()
        return Evaluation(
            sigma=sigma,
            images=images,
            copies=copies,
            reference=str(self._solvers.reference),
            accuracy=self._correct / self._draws,
            smoothed_accuracy=self._smoothed / images,
            accuracy_by_steps={k: v / self._draws for k, v in self._by_steps.items()},
            agreement_by_steps={k: v / self._draws for k, v in self._agree.items()},
            residual_by_steps={k: float(torch.cat(v).median()) for k, v in self._residuals.items()},
            disagreement_serial={k: v / self._serial_draws for k, v in serial},
            convergence=str(self._solvers.convergence),
            converged=self._converged / self._draws,
            steps_to_converge={
                "median": float(steps.median()),
                "p99": float(np.quantile(steps.numpy(), 0.99)),
                "max": float(steps.max()),
            },
        )


def _noisy(
    images: Tensor,  # (B, C, H, W)
    sigma: float,
    copies: int,
    seed: int,
    chunk: int,
) -> Iterator[Tensor]:  # each (B, C, H, W)
    for copy in range(copies):
        generator = keyed_generator(seed, copy, "evaluation", chunk)
        noise = generator.standard_normal(tuple(images.shape), dtype=np.float32)
        yield images + sigma * torch.from_numpy(noise)


def _count(claims: Tensor) -> float:
    return float(claims.sum())


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _rounded(part) for key, part in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
