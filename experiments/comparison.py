"""Deterministic certificates beside smoothing, on MNIST and Fashion-MNIST: a table for each.

    python -m experiments.comparison --preset small

Runs the studies comparison-mnist and comparison-fashion-mnist as `experiments.study` would, and
ends in both tables (L2 and Linf apart) and the curves of the L2 certificates. `--data` picks one.
"""

from __future__ import annotations

import argparse
import time

from rich.console import Console

from deqcert.errors import unknown_name
from experiments.command import add_options, one_line_errors, run
from experiments.markdown import markdown

DATA = ("mnist", "fashion-mnist")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default=",".join(DATA), help="data sets, separated by commas")
    add_options(parser)
    options = parser.parse_args()
    console = Console(stderr=True)
    out, minutes, started = options.out, options.minutes, time.monotonic()
    with one_line_errors():
        names = options.data.split(",")
        for name in names:
            if name not in DATA:
                raise unknown_name("data set of the comparison", name, DATA)
        for name in names:
            if out is not None:
                options.out = out / name
            if minutes is not None:  # for all data sets together
                options.minutes = max(0.0, minutes - (time.monotonic() - started) / 60)
            results, finished = run(f"comparison-{name}", options, console)
            print(markdown(results))
            if not finished:
                console.print("time is up; the same command goes on from here")


if __name__ == "__main__":
    main()
