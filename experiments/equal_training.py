"""Weights compared on the same noisy test images, each set with its own solver.

    python -m experiments.equal_training mdeq-small-published-5 mdeq-small-short-5

Accuracy under noise of each, cell evaluations per draw, and the difference to the first, paired
over images with a 95 % bootstrap interval. Names are those of the zoo, of files, or of folders of
trainings below `--weights`; `NAME=SOLVER` takes another solver than the one they come with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.stats import bootstrap

from deqcert.data import Dataset, load_data
from deqcert.errors import ConfigurationError
from deqcert.models import EquilibriumModel, inference_copy, load_model, solve_rows
from deqcert.results.files import write_atomically
from deqcert.smoothing.noise import keyed_generator
from deqcert.solvers import SolverSpec
from experiments.command import RESULTS, one_line_errors
from experiments.subjects import WEIGHTS, find_weights

ROWS = 400
SEED = 11
"""Of the noise; the stage it is drawn for keeps it apart from that of trainings and cards."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Weights to measure: their name, the model, its card and the solver its labels are of."""

    name: str
    model: EquilibriumModel
    card: Mapping[str, Any]
    solver: SolverSpec


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One set of weights on all noisy copies.

    Attributes:
        name: Name of the weights.
        solver: The solver its labels are of.
        epochs: Epochs it was trained for.
        objective: What for, ``short-solve`` or ``equilibrium``.
        hours: Processor time of its training; of older cards, the time on the clock.
        evaluations: Cell evaluations per draw.
        right: Of each image, the copies whose label is right.
    """

    name: str
    solver: str
    epochs: int
    objective: str
    hours: float
    evaluations: float
    right: tuple[int, ...]


def measure(subject: Subject, data: Dataset, *, images: int, copies: int) -> Measured:
    """Label `copies` noisy copies of the first images, at the noise level of the card."""
    folded = inference_copy(subject.model)
    right = np.zeros(images, dtype=np.int64)
    evaluations = 0
    with Console(stderr=True) as console:
        for low in track(range(0, images, ROWS), description=subject.name, console=console):
            rows = np.arange(low, min(low + ROWS, images))
            clean, labels = data.batch(rows)
            for copy in range(copies):
                generator = keyed_generator(SEED, copy, "equal training", low)
                noise = generator.standard_normal(tuple(clean.shape), dtype=np.float32)
                x = clean + subject.card["sigma"] * torch.from_numpy(noise)
                logits, solution = solve_rows(folded, x, subject.solver)
                right[rows] += (logits.argmax(dim=1) == labels).numpy()
                evaluations += int(solution.steps.sum())
    card = subject.card
    return Measured(
        name=subject.name,
        solver=str(subject.solver),
        epochs=card["epochs"],
        objective=card["config"]["objective"],
        hours=round(card.get("processor_seconds", card["seconds"]) / 3600, 3),
        evaluations=evaluations / (copies * images),
        right=tuple(right.tolist()),
    )


def difference(
    a: NDArray[np.floating],  # (images,) shares of copies
    b: NDArray[np.floating],
) -> tuple[float, float, float]:
    """Return the mean of a - b over images, and its 95 % bootstrap interval (percentile)."""
    gain = a - b
    if not gain.any():
        return 0.0, 0.0, 0.0
    found = bootstrap((gain,), np.mean, rng=0, n_resamples=2000, method="percentile", batch=100)
    low, high = found.confidence_interval
    return float(gain.mean()), float(low), float(high)


def table(found: Sequence[Measured], *, copies: int) -> str:
    """Return the comparison as Markdown; accuracies in percent, differences in points."""
    shares = [np.asarray(one.right) / copies for one in found]
    lines = [
        "| weights | objective | epochs | hours | solver | evaluations per draw "
        "| right under noise | more than the first, points |",
        "|---|---|---:|---:|---|---:|---:|---:|",
    ]
    for one, share in zip(found, shares, strict=True):
        gain, low, high = (100 * value for value in difference(share, shares[0]))
        more = "-" if one is found[0] else f"{gain:+.1f} [{low:+.1f}, {high:+.1f}]"
        lines.append(
            f"| `{one.name}` | {one.objective} | {one.epochs} | {one.hours:.2f} "
            f"| {one.solver} | {one.evaluations:.3g} | {100 * share.mean():.1f} | {more} |"
        )
    noisy = "1 noisy copy" if copies == 1 else f"{copies} noisy copies"
    lines.append(
        f"\n{len(shares[0]):,} test images, {noisy} of each; differences are paired over images, "
        "in brackets their 95 % bootstrap interval."
    )
    return "\n".join(lines) + "\n"


def load(text: str, folder: Path) -> Subject:
    """Return what ``NAME`` or ``NAME=SOLVER`` means.

    Raises:
        ConfigurationError: No such weights, or without a card of their training.
    """
    name, _, solver = text.partition("=")
    place = find_weights(name, folder)
    if place is None:
        raise ConfigurationError(f"no weights {name}: neither in the zoo nor in {folder}")
    model = load_model(place)
    if not model.card or "config" not in model.card:
        raise ConfigurationError(f"{name} has no card that tells how it was trained")
    return Subject(
        name=name, model=model, card=model.card, solver=SolverSpec.parse(solver or model.solver)
    )


def compare(
    names: Sequence[str],
    *,
    folder: Path = WEIGHTS,
    data_dir: Path | None = None,
    copies: int = 1,
    limit: int | None = None,
) -> list[Measured]:
    """Measure all these weights on the same draws.

    Raises:
        ConfigurationError: Weights that are not there, or of different noise levels or data.
    """
    if copies < 1 or (limit is not None and limit < 1):
        raise ConfigurationError("--copies and --limit must be at least 1")
    subjects = [load(text, folder) for text in names]
    settings = {(subject.card["sigma"], subject.card["data"]["name"]) for subject in subjects}
    if len(settings) > 1:
        raise ConfigurationError("weights of different noise levels or data cannot be compared")
    _, name = settings.pop()
    data = load_data(name, split="test", folder=data_dir)
    images = len(data) if limit is None else min(limit, len(data))
    return [measure(subject, data, images=images, copies=copies) for subject in subjects]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+", metavar="NAME[=SOLVER]", help="weights to compare")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of other weights")
    parser.add_argument("--out", type=Path, default=RESULTS / "equal-training", help="folder")
    parser.add_argument("--copies", type=int, default=1, help="noisy copies of each image")
    parser.add_argument("--limit", type=int, help="only so many images, from the first on")
    parser.add_argument("--data-dir", type=Path, help="folder of the original data files")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with one_line_errors():
        found = compare(
            options.names,
            folder=options.weights,
            data_dir=options.data_dir,
            copies=options.copies,
            limit=options.limit,
        )
        values = {"copies": options.copies, "weights": [asdict(one) for one in found]}
        text = table(found, copies=options.copies)
        options.out.mkdir(parents=True, exist_ok=True)
        write_atomically(options.out / "results.json", json.dumps(values) + "\n")
        write_atomically(options.out / "table.md", text)
        print(text, end="")


if __name__ == "__main__":
    main()
