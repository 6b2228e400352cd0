"""Run a study and write its table: certified accuracy beside the published numbers.

    python -m experiments.study cifar10-small --preset small

Certifies what is missing, image by image, into run folders under OUT/runs; stopped at any time, the
same command goes on. Then writes OUT/table.md, OUT/table.json and pictures. `--list` names the
studies; docs/experiments.md describes them.
"""

from __future__ import annotations

import argparse

from rich.console import Console

from experiments.command import add_options, one_line_errors, run
from experiments.markdown import markdown
from experiments.settings import available, read_study


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", nargs="?", help="name of a study, or a TOML file")
    parser.add_argument("--list", action="store_true", help="name the studies")
    add_options(parser)
    options = parser.parse_args()
    if options.list or options.study is None:
        print("\n".join(f"{name}: {read_study(name, 'small').title}" for name in available()))
        return
    console = Console(stderr=True)
    with one_line_errors():
        results, finished = run(options.study, options, console)
        print(markdown(results))
    if not finished:
        console.print("time is up; the same command goes on from here")


if __name__ == "__main__":
    main()
