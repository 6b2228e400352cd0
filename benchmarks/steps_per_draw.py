"""Cell evaluations per draw: few steps from the model's own start, and serialized starts.

    python benchmarks/steps_per_draw.py mdeq-digits-s025 mdeq-digits-s050 mdeq-small-s050 \
        --data-dir FOLDER --out benchmarks/results/steps_per_draw

First part, over many images: accuracy under noise and disagreement with 30 Anderson steps of
solvers with few steps, also from a start fitted once to training images, and of rows that stop by
themselves (on their residual, or when their label is stable and its lead clear). Second part, over
fewer images with more draws: disagreement of serialized labels with that reference by start and
steps, and what `srs` is then planned to cost beside `standard`. Writes OUT.json after every image,
goes on where it was stopped, and OUT.md.
"""

from __future__ import annotations

import argparse
import itertools
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from console import track
from ledger import Ledger
from starts_tried import SharedJacobian, starts, steps_of
from steps_tables import SETTLED, outcomes, report

from deqcert.data import Dataset, load_data
from deqcert.models import load_model
from deqcert.smoothing import NoiseSource, ReferenceClassifier, Sampler, Serialization
from deqcert.smoothing.predictor import LinearPredictor
from deqcert.smoothing.settling import FIT_ROWS
from deqcert.smoothing.spent import Spent
from deqcert.solvers import SolverSpec, relative_residual, select_rows, solve

REFERENCE, WARMUP = SolverSpec.parse("anderson:30"), SolverSpec.parse("anderson:10")
STEPS, WARM_STEPS = 8, 4
FITTED = 400
"""Training images, with one draw each, that the stateless start is fitted to."""


class Subject:
    """One model on its test images, at the noise level of its card."""

    def __init__(self, name: str, folder: Path | None) -> None:
        trained = load_model(name)
        assert trained.card, f"{name} has no card that names its data and noise level"
        self.own = trained.solver
        self.sigma = float(trained.card["sigma"])
        self.classifier = ReferenceClassifier(trained, trained.solver, sigma=self.sigma)
        self.model = self.classifier.model
        name = trained.card["data"]["name"]
        self.data = load_data(name, split="test", folder=folder)
        self.fitted = self._fitted(load_data(name, split="train", folder=folder))

    @torch.no_grad()
    def _fitted(self, train: Dataset) -> LinearPredictor:
        """Return a start fitted to training images: a function of the noisy image alone."""
        chosen = np.linspace(0, len(train) - 1, min(FITTED, len(train))).astype(int).tolist()
        noise = NoiseSource(seed=8, index=0, shape=self.model.input_shape, sigma=self.sigma)
        noisy = torch.stack([train[i].image for i in chosen])
        injection = self.model.inject(noisy + noise.draws("fit", chosen))
        begin = self.model.initial_state(injection)
        solved = solve(self.model.cell, begin, injection, spec=REFERENCE).state
        return LinearPredictor(injection, solved)

    def sampler(self, index: int) -> Sampler:
        """Return the sampler of one test image."""
        noise = NoiseSource(seed=7, index=index, shape=self.model.input_shape, sigma=self.sigma)
        return Sampler(self.classifier, self.data[index].image, noise, batch_size=400)

    def injection(self, index: int, stage: str, draws: int) -> Any:
        """Return the injections of some draws of one test image."""
        return self.model.inject(self.sampler(index).noisy(stage, range(draws)))

    def labels(self, state: Any) -> np.ndarray:
        """Return the labels of a state."""
        return self.model.classify(state).argmax(1).numpy()

    def spread(self, images: int) -> list[int]:
        """Return indices of so many test images, evenly spaced."""
        return np.linspace(0, len(self.data) - 1, min(images, len(self.data))).astype(int).tolist()


@torch.no_grad()
def few_steps(subject: Subject, index: int, draws: int) -> dict[str, str]:
    """Return what every rule of `steps_tables.rules` makes of the first Picard iterates."""
    model = subject.model
    injection = subject.injection(index, "estimation", draws)
    state = model.initial_state(injection)
    reference = solve(model.cell, state, injection, spec=REFERENCE).state
    path = steps_of(model.cell, state, injection, STEPS)
    logits = [model.classify(z) for z in path[1:]]
    top = torch.stack([part.topk(2, dim=1).values for part in logits])
    residual = torch.stack([relative_residual(a, b) for a, b in itertools.pairwise(path)])
    fitted = steps_of(model.cell, subject.fitted(injection), injection, WARM_STEPS)
    return outcomes(
        truth=int(subject.data[index].label),
        reference=subject.labels(reference),
        labels=torch.stack([part.argmax(1) for part in logits]).numpy(),
        leads=(top[..., 0] - top[..., 1]).numpy(),
        residuals=residual.numpy(),
        fitted=np.stack([subject.labels(z) for z in fitted]),
    )


@torch.no_grad()
def serialized(subject: Subject, index: int, draws: int) -> dict[str, Any]:
    """Return, by start and steps, cost and disagreement with 30 Anderson steps.

    `own` has the same for the model's own solver as the reference.
    """
    model = subject.model
    past = subject.injection(index, "start", FIT_ROWS)
    solved = solve(model.cell, model.initial_state(past), past, spec=WARMUP).state
    now = subject.injection(index, "estimation", draws)
    begin = starts(model, subject.data[index].image, past, solved, now, WARMUP)
    cold = solve(model.cell, begin["model's own"], now, spec=REFERENCE).state
    judge = Judge(subject.labels(cold))
    for name, state in begin.items():
        for k, z in enumerate(steps_of(model.cell, state, now, WARM_STEPS)):
            judge.enter(f"{name}, picard:{k}", subject.labels(z), k)
    three = solve(model.cell, begin["previous"], now, spec="anderson:3").state
    judge.enter("previous, anderson:3", subject.labels(three), 3)
    shared = SharedJacobian(model, past, solved)
    for k, z in enumerate(steps_of(shared, begin["mean"], now, WARM_STEPS)):
        judge.enter(f"shared Jacobian, picard:{k}", subject.labels(z), k)
    judge.enter(SETTLED, *_settled(subject, index, draws, WARMUP))
    short = solve(model.cell, begin["model's own"], now, spec=subject.own).state
    own = Judge(subject.labels(short))
    solved = solve(model.cell, model.initial_state(past), past, spec=subject.own).state
    before = select_rows(solved, torch.arange(draws) % FIT_ROWS)
    own.enter("previous, picard:1", subject.labels(model.cell(before, now)), 1)
    own.enter(SETTLED, *_settled(subject, index, draws, subject.own))
    return {"p": judge.p, "draws": draws, "starts": judge.found, "own": own.found}


class Judge:
    """Compares serialized labels of one image with reference labels."""

    def __init__(self, reference: np.ndarray) -> None:
        self.reference = reference
        self.top = int(np.bincount(reference).argmax())
        self.right = reference == self.top
        self.p = float(self.right.mean())
        self.found: dict[str, Any] = {}

    def enter(self, name: str, labels: np.ndarray, cost: float) -> None:
        """Note cell evaluations per draw and, of the top class: claimed, wrong, missed draws."""
        claimed = labels == self.top
        counts = (claimed, claimed & ~self.right, self.right & ~claimed)
        self.found[name] = {
            "cost": cost,
            "wrong": float((labels != self.reference).mean()),
            "counts": [int(c.sum()) for c in counts],
        }


def _settled(
    subject: Subject, index: int, draws: int, warmup: SolverSpec
) -> tuple[np.ndarray, float]:
    """Return the labels of the start ``linear``, and its cell evaluations per draw without fit."""
    serial = SolverSpec.parse("picard:1")
    how = Serialization(serial=serial, warmup=warmup, start="linear", chains=400)
    sampler, spent = subject.sampler(index), Spent()
    sampler.prepare(how, Spent())
    labels = sampler.serialized("estimation", draws, how, spent)
    return labels, spent.cell_evaluations / draws


@torch.no_grad()
def classify_cost(subject: Subject) -> float:
    """Return the time of a classification in cell evaluations, the best of interleaved repeats."""
    model = subject.model
    injection = subject.injection(0, "estimation", 64)
    state = model.cell(model.initial_state(injection), injection)
    best = {"cell": np.inf, "classify": np.inf}
    for _ in range(20):
        for name, work in (
            ("cell", lambda: model.cell(state, injection)),
            ("classify", lambda: model.classify(state)),
        ):
            started = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - started)
    return best["classify"] / best["cell"]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("models", nargs="+", help="zoo names or checkpoint files, with cards")
    parser.add_argument("--out", type=Path, required=True, help="files to write, without suffix")
    parser.add_argument("--images", type=int, default=250, help="test images, first part")
    parser.add_argument("--copies", type=int, default=8, help="draws of each")
    parser.add_argument("--serial-images", type=int, default=24, help="test images, second part")
    parser.add_argument("--draws", type=int, default=200, help="draws of each")
    parser.add_argument("--data-dir", type=Path, help="folder with the data sets' original files")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure everything once more")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = ("images", "copies", "serial_images", "draws", "threads")
    settings = {key: getattr(options, key) for key in sizes}
    ledger = Ledger(options.out.with_suffix(".json"), settings, again=options.again)
    for name in options.models:
        subject = Subject(name, options.data_dir)
        known = f"{Path(name).stem} {subject.classifier.digest[:12]}"
        facts = {"sigma": subject.sigma, "own": str(subject.own)}
        ledger.measure(f"{known}|model", lambda s=subject, f=facts: f | {"head": classify_cost(s)})
        for i in track(subject.spread(options.images), f"{name}: few steps"):
            ledger.measure(f"{known}|few|{i}", partial(few_steps, subject, i, options.copies))
        for i in track(subject.spread(options.serial_images), f"{name}: serialized"):
            ledger.measure(f"{known}|serial|{i}", partial(serialized, subject, i, options.draws))
    text = report(ledger.results)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
