"""What the commands of studies share: options, running one study, writing what it found."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from deqcert.data import load_data
from deqcert.errors import ConfigurationError, DeqcertError, unknown_name
from deqcert.results.files import write_atomically
from deqcert.results.plots import MissingMatplotlibError
from deqcert.runners import Workers
from experiments.markdown import markdown
from experiments.pictures import pictures
from experiments.running import Place, run_study
from experiments.settings import PRESETS, Row, Study, read_study
from experiments.subjects import WEIGHTS, Shelf
from experiments.tables import Results, as_json, collect

RESULTS = Path(__file__).parent / "results"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command of studies has."""
    parser.add_argument("--preset", choices=PRESETS, default="small", help="sizes to run at")
    parser.add_argument("--out", type=Path, help="folder; default experiments/results/STUDY-PRESET")
    parser.add_argument("--rows", help="only these rows, separated by commas")
    parser.add_argument("--limit", type=int, help="at most so many images of each row")
    parser.add_argument("--minutes", type=float, help="stop, between images, after so long")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="ROW=PATH",
        help="checkpoint, or zoo name, of a row; may be repeated",
    )
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, help="folder of checkpoints by model name"
    )
    parser.add_argument("--data-dir", type=Path, help="folder of the original data files")
    parser.add_argument("--device", help="torch device of smoothing, such as cuda; default cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, of each worker")
    parser.add_argument(
        "--workers",
        type=int,
        help="processes that certify images side by side, row after row; default: rows in turns, "
        "image by image, in this process",
    )
    parser.add_argument("--table", action="store_true", help="run nothing, write the table again")


def run(name: str, options: argparse.Namespace, console: Console) -> tuple[Results, bool]:
    """Run one study as the options say; return its results, and whether nothing is left to do.

    Raises:
        DeqcertError: An option, a model or a data file that does not fit.
    """
    torch.set_num_threads(options.threads)
    study = read_study(name, options.preset)
    if options.limit is not None and options.limit < 1:
        raise ConfigurationError(f"--limit must be >= 1, but got {options.limit}")
    chosen = choose(study, options.rows)
    out = options.out or RESULTS / f"{study.name}-{study.preset}"
    place = Place(
        out=out,
        shared=out.parent / f"shared-{study.preset}",
        data=load_data(study.data, split="test", folder=options.data_dir),
        shelf=Shelf(named=named_models(options.model, study), folder=options.weights),
        limit=options.limit,
        device=options.device,
        deadline=time.monotonic() + 60 * options.minutes if options.minutes is not None else None,
        workers=Workers(count=options.workers, threads=options.threads)
        if options.workers is not None
        else None,
        console=console,
    )
    finished = True if options.table else run_study(study, chosen, place)
    results = collect(study, place)
    write(results, place)
    return results, finished


def choose(study: Study, names: str | None) -> tuple[Row, ...]:
    """Return the rows of these names, in the study's order; None means all.

    Raises:
        UnknownNameError: A name of no row.
    """
    if names is None:
        return study.rows
    wanted = names.split(",")
    known = [row.name for row in study.rows]
    for name in wanted:
        if name not in known:
            raise unknown_name("row", name, known)
    return tuple(row for row in study.rows if row.name in wanted)


def named_models(pairs: Sequence[str], study: Study) -> dict[str, str]:
    """Return the checkpoints given as ROW=PATH.

    Raises:
        ConfigurationError: Not of that form.
        UnknownNameError: A name of no row.
    """
    found = {}
    known = [row.name for row in study.rows]
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise ConfigurationError(f"--model must be ROW=PATH, but got {pair!r}")
        if name not in known:
            raise unknown_name("row", name, known)
        found[name] = path
    return found


def write(results: Results, place: Place) -> None:
    """Write tables and pictures."""
    place.out.mkdir(parents=True, exist_ok=True)
    write_atomically(place.out / "table.json", as_json(results))
    write_atomically(place.out / "table.md", markdown(results))
    try:
        for name, content in pictures(results).items():
            write_atomically(place.out / name, content)
    except MissingMatplotlibError as error:
        place.console.print(f"no pictures: {error}", markup=False)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an error of ours into one line and exit code 2, Ctrl-C into a hint and 130."""
    try:
        yield
    except DeqcertError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
