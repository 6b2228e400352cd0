"""Accuracy under noise against training time, of one or several trainings.

python -m experiments.training_curve FOLDER...

takes the logs of these training folders into --out, one file for each, and draws all files there;
one under way may be taken again later. Without folders only the picture and the table are made.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deqcert.errors import ConfigurationError
from deqcert.results import plots
from deqcert.results.files import write_atomically
from deqcert.training.folder import CARD_NAME, LOG_NAME
from experiments.command import RESULTS, one_line_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEPS = ("1", "2", "3", "5", "30")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What became of one training.

    Attributes:
        name: Name of its folder.
        objective: What was trained for, ``short-solve`` or ``equilibrium``.
        sigma: Noise level, pixel units.
        epochs: Epochs it is to have.
        done: Epochs it has had.
        precision: Number format of the forward passes.
        epoch_hours: Hours of an epoch, the median; pauses of the process make some longer.
        held_out: After these epochs: epoch, images held out, share that is right under noise.
        test: Accuracy under noise on test images by number of steps, once it has finished; empty
            before.
        accuracy: The same with the model's own solver.
        test_draws: Noisy test images that is measured on.
        processor_hours: Processor time it took, once it has finished.
    """

    name: str
    objective: str
    sigma: float
    epochs: int
    done: int
    precision: str
    epoch_hours: float
    held_out: tuple[tuple[int, int, float], ...] = ()
    test: Mapping[str, float] = field(default_factory=dict)
    accuracy: float | None = None
    test_draws: int = 0
    processor_hours: float | None = None

    @property
    def hours(self) -> float:
        """Hours of an epoch: processor time where known, since other work stretches the clock."""
        if self.processor_hours is None:
            return self.epoch_hours
        return self.processor_hours / self.epochs


def read_training(folder: Path) -> Training:
    """Return what the log of a training folder says, and the card if there is one.

    Raises:
        ConfigurationError: No training folder, or one without a finished epoch.
    """
    try:
        config = json.loads((folder / "training.json").read_text(encoding="utf-8"))["config"]
        lines = (folder / LOG_NAME).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigurationError(f"{folder} is no training folder: {error}") from error
    epochs = [json.loads(line) for line in lines]
    if not epochs:
        raise ConfigurationError(f"{folder} has no finished epoch yet")
    marks = [0.0, *(epoch["seconds"] for epoch in epochs)]
    spent = [late - soon for soon, late in itertools.pairwise(marks)]
    return Training(
        name=folder.resolve().name,
        objective=config["objective"],
        sigma=config["sigma"],
        epochs=config["epochs"],
        done=len(epochs),
        precision=config["precision"],
        epoch_hours=round(statistics.median(spent) / 3600, 4),
        held_out=tuple(_held_out(epochs)),
        **_finished(folder),
    )


def _held_out(epochs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int, float]]:
    for epoch in epochs:
        if "validation" in epoch:
            found = epoch["validation"]
            yield epoch["epoch"] + 1, found["images"] * found["copies"], found["accuracy"]


def _finished(folder: Path) -> dict[str, Any]:
    """Return what the card says, which a training writes at its end."""
    try:
        card = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    found: dict[str, Any] = {"processor_hours": round(card["processor_seconds"] / 3600, 3)}
    if "test" in card:
        found["test"] = {k: card["test"]["accuracy_by_steps"][k] for k in STEPS}
        found["accuracy"] = card["test"]["accuracy"]
        found["test_draws"] = card["test"]["images"] * card["test"]["copies"]
    return found


def table(trainings: Sequence[Training]) -> str:
    """Return the trainings as a Markdown table; accuracies in percent."""
    header = ["training", "objective", "precision", "epochs", "hours", "last held out", "test"]
    header += [f"{k} step{'s' * (k != '1')}" for k in STEPS]
    lines = [header, ["---", "---", "---", *["---:"] * (len(header) - 3)]]
    for one in trainings:
        lines.append(
            [
                f"`{one.name}`, sigma {one.sigma:g}",
                one.objective,
                one.precision,
                str(one.epochs) if one.done == one.epochs else f"{one.done} of {one.epochs}",
                f"{one.done * one.hours:.2f}",
                f"{100 * one.held_out[-1][2]:.1f}" if one.held_out else "-",
                "-" if one.accuracy is None else f"{100 * one.accuracy:.1f}",
                *(f"{100 * one.test[k]:.1f}" if one.test else "-" for k in STEPS),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def picture(trainings: Sequence[Training]) -> bytes:
    """Return the curves as PNG: held-out accuracy by hours, a ring for each finished one's test.

    Raises:
        MissingMatplotlibError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise plots.MissingMatplotlibError(plots.INSTALL_HINT) from error
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.add_subplot()
        for position, one in enumerate(trainings):
            _draw(axes, one, position)
        axes.set_xlabel("hours of processor time")
        axes.set_ylabel("right under noise, %")
        axes.set_xlim(left=0)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.legend(frameon=False, loc="lower right")
    return plots.encode(figure, "png")


def _draw(axes: Axes, one: Training, position: int) -> None:
    colour = plots.COLOURS[position % len(plots.COLOURS)]
    marker = plots.MARKERS[position % len(plots.MARKERS)]
    hours = [epoch * one.hours for epoch, _, _ in one.held_out]
    shares = [100 * share for _, _, share in one.held_out]
    errors = [100 * (share * (1 - share) / draws) ** 0.5 for _, draws, share in one.held_out]
    label = f"{one.name}, {one.epochs} epochs"
    if hours:
        style = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1.0}
        axes.errorbar(hours, shares, errors, label=label, elinewidth=0.6, **style)
    if one.accuracy is not None:
        end = one.epochs * one.hours
        ring = {"marker": marker, "markersize": 9, "markerfacecolor": "none", "linestyle": "none"}
        text = None if hours else label
        axes.plot(
            [end],
            [100 * one.accuracy],
            markeredgecolor=colour,
            markeredgewidth=1.6,
            label=text,
            **ring,
        )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="folders of deqcert train --out")
    parser.add_argument("--out", type=Path, default=RESULTS / "training", help="where results lie")
    options = parser.parse_args()
    with one_line_errors():
        options.out.mkdir(parents=True, exist_ok=True)
        for folder in options.folders:
            one = read_training(folder)
            text = json.dumps(asdict(one), indent=1) + "\n"
            write_atomically(options.out / f"{one.name}.json", text)
        files = sorted(options.out.glob("*.json"))
        trainings = [Training(**json.loads(path.read_text(encoding="utf-8"))) for path in files]
        if not trainings:
            raise ConfigurationError(f"no training in {options.out}, and none was named")
        write_atomically(options.out / "table.md", table(trainings))
        write_atomically(options.out / "curves.png", picture(trainings))
        print(table(trainings), end="")


if __name__ == "__main__":
    main()
