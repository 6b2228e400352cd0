"""Train what the zoo and the studies still want, in slices of any length.

    python -m experiments.zoo --list
    python -m experiments.zoo --minutes 9 --device cuda

Takes the trainings of zoo.toml in their order, each into a folder of its name under `--out`, where
the studies look for weights. Stopped at any time, or after `--minutes`, the same command goes on;
with trainings left it ends with exit code 75.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from deqcert.cli import PAUSED
from deqcert.cli_options import read_toml
from deqcert.data import load_data
from deqcert.errors import ConfigurationError, TrainingPaused, unknown_name
from deqcert.training import TrainConfig, console_progress, find_recipe, train
from experiments.command import one_line_errors
from experiments.subjects import WEIGHTS

WANTED = Path(__file__).parent / "zoo.toml"
MODEL = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One training of the list.

    Attributes:
        name: Name of its folder: that of the weights.
        data: Data set, trained on its train split.
        model: Architecture.
        sigma: Noise level, pixel units.
        recipe: Name of the recipe.
        settings: Values of `TrainConfig` above it.
        about: What it is for.
    """

    name: str
    data: str
    model: str
    sigma: float
    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""

    @property
    def config(self) -> TrainConfig:
        """The settings in full."""
        recipe = find_recipe(self.recipe, model=self.model)
        return recipe.config(sigma=self.sigma, **self.settings)


def read_wanted(path: Path = WANTED) -> list[Wanted]:
    """Return the trainings of a file, in its order.

    Raises:
        ConfigurationError: A table that is no training.
    """
    found = []
    for name, table in read_toml(path).items():
        try:
            found.append(Wanted(name=name, **table))
        except TypeError as error:
            raise ConfigurationError(f"{path}: {name} is no training: {error}") from error
    return found


def choose(wanted: Sequence[Wanted], names: Sequence[str]) -> list[Wanted]:
    """Return the trainings of these names, in the list's order; no names mean all.

    Raises:
        UnknownNameError: A name of no training.
    """
    known = [one.name for one in wanted]
    for name in names:
        if name not in known:
            raise unknown_name("training", name, known)
    return [one for one in wanted if not names or one.name in names]


def left(wanted: Sequence[Wanted], out: Path) -> Iterator[Wanted]:
    """Yield the trainings that are not finished."""
    return (one for one in wanted if not (out / one.name / MODEL).exists())


def run_one(
    one: Wanted,
    out: Path,
    *,
    folder: Path | None,
    device: str | None,
    seconds: float | None,
    console: Console,
) -> None:
    """Train one, or go on with it.

    Raises:
        TrainingPaused: The time was up.
        DeqcertError: As `train` does.
    """
    with console_progress(one.name, console) as watch:
        train(
            one.model,
            load_data(one.data, split="train", folder=folder),
            out=out / one.name,
            config=one.config,
            test=load_data(one.data, split="test", folder=folder),
            command=f"python -m experiments.zoo {one.name}",
            watch=watch,
            device=device,
            model_settings=find_recipe(one.recipe, model=one.model).model,
            pause_after=seconds,
        )


def as_table(wanted: Sequence[Wanted], out: Path) -> Table:
    """Return the list, and how far each is."""
    table = Table("training", "data", "recipe", "sigma", "epochs", "", "", box=None)
    for one in wanted:
        place = out / one.name
        state = "finished" if (place / MODEL).exists() else "begun" if place.exists() else ""
        epochs = str(one.config.epochs)
        table.add_row(one.name, one.data, one.recipe, f"{one.sigma:g}", epochs, state, one.about)
    return table


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="only these trainings")
    parser.add_argument("--list", action="store_true", help="show them, and how far they are")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the trainings")
    parser.add_argument("--minutes", type=float, help="save and stop after so long")
    parser.add_argument("--data-dir", type=Path, help="folder of the original data files")
    parser.add_argument("--device", help="torch device, such as cuda; default cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    console = Console(stderr=True)
    torch.set_num_threads(options.threads)
    started = time.monotonic()
    with one_line_errors():
        wanted = choose(read_wanted(), options.names)
        if options.list:
            Console().print(as_table(wanted, options.out))
            return
        for one in list(left(wanted, options.out)):
            seconds = None
            if options.minutes is not None:
                # With no time left one step is still done, and kept: every call gets further.
                seconds = max(1e-9, 60 * options.minutes - (time.monotonic() - started))
            try:
                run_one(
                    one,
                    options.out,
                    folder=options.data_dir,
                    device=options.device,
                    seconds=seconds,
                    console=console,
                )
            except TrainingPaused as paused:
                console.print(f"{one.name}: {paused}", highlight=False, soft_wrap=True)
                sys.exit(PAUSED)


if __name__ == "__main__":
    main()
