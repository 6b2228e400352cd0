"""Few steps and early exits that give the labels of a long solve, chosen on images of the user.

Any function of one noisy image is a reference classifier (THEORY 1.3). This finds cheap ones which
agree with an expensive one: how many Picard steps, where rows whose label is clear may stop, and
above which lead. It is fixed before anything is certified, so no certificate depends on how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from deqcert.checks.tune_result import Choice, Tuning
from deqcert.data import Dataset
from deqcert.errors import ConfigurationError
from deqcert.models import EquilibriumModel
from deqcert.smoothing.classifier import Labels, ReferenceClassifier, precision_name
from deqcert.smoothing.noise import NoiseSource, check_seed
from deqcert.smoothing.settings import check_count, check_number
from deqcert.solvers import SolverSpec, State
from deqcert.solvers.spec import Exit
from deqcert.stats import clopper_pearson_upper

LIMITS = (0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
"""Shares of labels that may differ, for each of which the cheapest classifier is looked for."""

_ONE = SolverSpec("picard", 1)
_EXITS = 2
"""Exits at most; a third one would take a hundred times as many choices."""
_SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Shares of rows that go on at an exit; its lead is the quantile, to two digits."""

Watch = Callable[[int, int, str], None]


def tune(
    model: EquilibriumModel,
    data: Dataset,
    *,
    sigma: float,
    against: SolverSpec | str = "anderson:30",
    most: int = 12,
    images: int = 1000,
    copies: int = 4,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Tuning:
    """Find references with few Picard steps and exits that give the labels of a long solve.

    All numbers of steps up to `most` are looked at, with no exit, one or two, at leads that let
    2 to 70 % of the rows go on. A cell evaluation costs 1, a look at the logits what its operations
    are of those of an evaluation. The cheapest for each share of differing labels is chosen on
    every other image; what is reported of it is measured on the images between them.

    Args:
        model: The model; it is copied for inference.
        data: Images with labels; those of the training split, where test images are certified.
        sigma: Noise standard deviation, pixel units, > 0.
        against: The long solver whose labels are wanted, in the same precision.
        most: Picard steps at most, >= 1.
        images: Images, evenly spread over the data, >= 2.
        copies: Noisy copies of each, >= 1.
        dtype: As in `Certifier`.
        device: As in `Certifier`.
        seed: Seed of the noise.
        watch: Called as ``watch(done, total, "")`` after each image batch.

    Raises:
        ConfigurationError: A value out of range, or fewer than two images.
    """
    wanted = SolverSpec.parse(against)
    most, images = check_count("most", most), min(check_count("images", images), len(data))
    copies, sigma = check_count("copies", copies), check_number("sigma", sigma)
    if images < 2:
        raise ConfigurationError(f"tuning needs at least 2 images, but has {images}")
    if not 0 < sigma < float("inf"):
        raise ConfigurationError(f"sigma must be finite and > 0, but got {sigma}")
    classifier = ReferenceClassifier(
        model, _ONE, sigma=sigma, device=device, precision=precision_name(dtype)
    )
    rows = np.linspace(0, len(data) - 1, images).astype(np.int64)
    seen = _Seen.empty(most)
    per_batch = max(1, classifier.default_batch_size(wanted) // copies)
    for low in range(0, images, per_batch):
        some = rows[low : low + per_batch]
        noisy, truth = _noisy(data, some, sigma, copies, check_seed(seed))
        seen = seen.joined(_look(classifier, noisy, truth, wanted, most))
        if watch is not None:
            watch(min(low + per_batch, images), images, "")
    look = look_cost(model)
    halves = np.arange(images).repeat(copies) % 2
    choosing, reporting = seen.where(halves == 0), seen.where(halves == 1)
    found = list(_candidates(choosing, look))
    chosen = [_cheapest(found, limit) for limit in LIMITS]
    kept = dict.fromkeys(spec for spec in chosen if spec is not None)
    plain = [SolverSpec("picard", k) for k in range(1, most + 1)]
    return Tuning(
        against=str(wanted),
        sigma=sigma,
        precision=classifier.precision,
        images=images,
        copies=copies,
        look_cost=look,
        accuracy=float((reporting.goal == reporting.truth).mean()),
        plain=tuple(_choice(reporting, spec, look) for spec in plain),
        chosen=tuple(_choice(reporting, spec, look) for spec in kept),
        limits=LIMITS,
        chosen_for=tuple(None if spec is None else str(spec) for spec in chosen),
    )


@dataclass(frozen=True)
class _Seen:
    """What was seen of N noisy images after 1 to K steps.

    Attributes:
        label: Labels by steps, (K, N).
        lead: Logit leads by steps, (K, N).
        goal: Labels of the long solve, (N,).
        truth: Classes, (N,).
    """

    label: np.ndarray
    lead: np.ndarray
    goal: np.ndarray
    truth: np.ndarray

    @classmethod
    def empty(cls, most: int) -> _Seen:
        none = np.zeros((most, 0))
        return cls(none.astype(np.int32), none, np.zeros(0, np.int32), np.zeros(0, np.int64))

    def joined(self, other: _Seen) -> _Seen:
        return _Seen(
            np.concatenate([self.label, other.label], axis=1),
            np.concatenate([self.lead, other.lead], axis=1),
            np.concatenate([self.goal, other.goal]),
            np.concatenate([self.truth, other.truth]),
        )

    def where(self, chosen: np.ndarray) -> _Seen:
        return _Seen(
            self.label[:, chosen], self.lead[:, chosen], self.goal[chosen], self.truth[chosen]
        )

    def leads_at(self, steps: int) -> list[float]:
        """Return leads that let some shares of the rows go on, of two digits and positive."""
        leads = np.quantile(self.lead[steps - 1], _SHARES)
        return sorted({float(f"{lead:.2g}") for lead in leads if lead > 0})


def _noisy(
    data: Dataset, rows: np.ndarray, sigma: float, copies: int, seed: int
) -> tuple[torch.Tensor, np.ndarray]:  # (rows * copies, C, H, W), (rows * copies,)
    images, labels = data.batch(rows)
    noise = [
        NoiseSource(seed=seed, index=int(row), shape=tuple(data.input_shape), sigma=sigma).draws(
            "tune", range(copies)
        )
        for row in rows
    ]
    return images.repeat_interleave(copies, dim=0) + torch.cat(noise), labels.numpy().repeat(copies)


def _look(
    classifier: ReferenceClassifier,
    noisy: torch.Tensor,
    truth: np.ndarray,
    wanted: SolverSpec,
    most: int,
) -> _Seen:
    goal, _ = classifier.labelled(noisy, spec=wanted)
    found: list[Labels] = []
    state: State | None = None
    for _ in range(most):
        labels, solution = classifier.labelled(noisy, spec=_ONE, state0=state)
        state = solution.state
        found.append(labels)
    return _Seen(
        np.stack([labels.label for labels in found]),
        np.stack([labels.lead for labels in found]).astype(np.float64),
        goal.label,
        truth,
    )


@dataclass(frozen=True)
class _Candidate:
    spec: SolverSpec
    cost: float
    differing: float


@dataclass(frozen=True)
class _Begun:
    """Some exits, and what they leave.

    Attributes:
        exits: The exits so far.
        cost: What they cost a row, mean, in cell evaluations.
        lost: Share of all rows that ended with another label.
        going: 1 for each row that goes on, 0 for the others.
    """

    exits: tuple[Exit, ...]
    cost: float
    lost: float
    going: np.ndarray  # (N,) float32

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return self.exits[-1][0] if self.exits else 0

    def cost_until(self, steps: int, look: float) -> float:
        """Return the cost if the rows that go on are looked at after so many steps."""
        return self.cost + float(self.going.mean()) * (steps - self.steps + look)


def _candidates(seen: _Seen, look: float) -> Iterator[_Candidate]:
    """Give every reference that is looked at, with its cost and the share of other labels."""
    most, total = seen.label.shape
    wrong = (seen.label != seen.goal).astype(np.float32)
    for begun in _begun(seen, wrong, look):
        at_end = wrong @ begun.going / total
        for steps in range(begun.steps + 1, most + 1):
            yield _Candidate(
                SolverSpec("picard", steps, exits=begun.exits),
                begun.cost_until(steps, look),
                begun.lost + float(at_end[steps - 1]),
            )


def _begun(seen: _Seen, wrong: np.ndarray, look: float) -> Iterator[_Begun]:
    """Give all choices of no exit, one and two."""
    most, total = seen.label.shape
    left = [_Begun((), 0.0, 0.0, np.ones(total, np.float32))]
    while left:
        begun = left.pop()
        yield begun
        if len(begun.exits) == _EXITS:
            continue
        for steps in range(begun.steps + 1, most):
            for lead in seen.leads_at(steps):
                going = begun.going * (seen.lead[steps - 1] <= lead)
                ended = float(wrong[steps - 1] @ (begun.going - going)) / total
                exits = (*begun.exits, (steps, lead))
                cost = begun.cost_until(steps, look)
                left.append(_Begun(exits, cost, begun.lost + ended, going))


def _cheapest(found: Sequence[_Candidate], limit: float) -> SolverSpec | None:
    allowed = [c for c in found if c.differing <= limit]
    # Of equal cost the one with fewer other labels, then the shorter one.
    best = min(allowed, key=lambda c: (c.cost, c.differing, len(str(c.spec))), default=None)
    return None if best is None else best.spec


def _choice(seen: _Seen, spec: SolverSpec, look: float) -> Choice:
    """Measure one reference on images that had no say in choosing it."""
    total = len(seen.goal)
    label, going = np.empty(total, np.int32), np.ones(total, bool)
    evaluations = looks = 0.0
    before = 0
    for steps, lead in (*spec.exits, (spec.max_steps, -1.0)):
        evaluations += float(going.mean()) * (steps - before)
        looks += float(going.mean())
        label[going] = seen.label[steps - 1][going]
        going = going & (seen.lead[steps - 1] <= lead)
        before = steps
    differing = int((label != seen.goal).sum())
    return Choice(
        reference=str(spec),
        evaluations=evaluations,
        classifications=looks,
        cost=evaluations + look * looks,
        differing=differing / total,
        differing_upper=float(clopper_pearson_upper(differing, total, 0.025)),
        accuracy=float((label == seen.truth).mean()),
    )


@torch.no_grad()
def look_cost(model: EquilibriumModel) -> float:
    """Return the operations of a classification, in cell evaluations.

    Operations of matrix products and convolutions, as PyTorch counts them; the ratio is 0 where the
    cell has none.
    """
    weight = next(model.parameters())
    x = torch.zeros(1, *model.input_shape, dtype=weight.dtype, device=weight.device)
    was_training = model.training
    model.eval()
    try:
        injection = model.inject(x)
        state = model.initial_state(injection)
        counts = []
        for work in (lambda: model.cell(state, injection), lambda: model.classify(state)):
            with FlopCounterMode(display=False) as counter:
                work()
            counts.append(counter.get_total_flops())
    finally:
        model.train(was_training)
    cell, head = counts
    return head / cell if cell else 0.0
