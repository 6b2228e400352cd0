"""All benchmarks that need nothing but this package: what `make bench` runs.

    python benchmarks/suite.py --quick --out bench      some minutes
    python benchmarks/suite.py --out bench              the committed sizes; CIFAR-10 is downloaded

Each part is a script of this folder in a process of its own, one after the other, and writes its
results and the machine's description as JSON under `--out`; `summary.md` there puts them into
tables, as in docs/benchmarks.md. A part that is there with the same settings is not run again
(`--again` does), and one that was stopped goes on where it can. Comparisons with other
implementations (`same_work.py`, `end_to_end.py`) are run by hand: see docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console import console
from ledger import Ledger
from tables import summary

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Part:
    """One script of the suite.

    Attributes:
        name: Its results' name: NAME.json under the output folder.
        script: File name in this folder.
        full: Arguments at the committed sizes.
        quick: Arguments of the quick preset; None leaves the part out of it.
        out: What `--out` is given: the JSON file, or its path without suffix.
        keeps: Whether the script itself goes on where it was stopped.
    """

    name: str
    script: str
    full: str
    quick: str | None
    out: str = "{name}.json"
    keeps: bool = False


PARTS = (
    Part(name="startup", script="startup.py", full="", quick="--repeats 5"),
    Part(name="cell_cost", script="cell_cost.py", full="", quick="--rows 64 --repeats 3"),
    Part(
        name="overhead",
        script="overhead.py",
        full="",
        quick="--models mdeq-digits-s050 --dtypes float32 --n 800 --repeats 3",
        keeps=True,
    ),
    Part(
        name="factors_digits",
        script="factors.py",
        full="--images 5 --n 1000",
        quick="--images 2 --n 300 --srs-n 2000",
        out="{name}",
        keeps=True,
    ),
    Part(
        name="factors_small",
        script="factors.py",
        full="--model mdeq-small-s050 --data cifar10 --skip 200 --images 3 --n 1000",
        quick=None,
        out="{name}",
        keeps=True,
    ),
    Part(
        name="cost_against_size",
        script="cost_against_size.py",
        full="",
        quick="--models mdeq-digits-s050 mdeq-small-s050 --batch-sizes 64 400 --batches 1",
        keeps=True,
    ),
    Part(
        name="cost_against_n",
        script="cost_against_n.py",
        full="",
        quick="--model mdeq-digits-s050 --sigma 0.5 --draws 1000 5000",
    ),
    Part(
        name="steps_per_draw",
        script="steps_per_draw.py",
        full="mdeq-digits-s025 mdeq-digits-s050 mdeq-small-s050",
        quick="mdeq-digits-s050 --images 20 --copies 4 --serial-images 2 --draws 100",
        out="{name}",
        keeps=True,
    ),
)


def command(part: Part, folder: Path, options: argparse.Namespace) -> list[str]:
    """Return the command line of one part."""
    given = shlex.split((part.quick if options.quick else part.full) or "")
    out = str(folder / part.out.format(name=part.name))
    line = [sys.executable, str(HERE / part.script), *given, "--out", out]
    line += ["--threads", str(options.threads)]
    return line + (["--again"] if part.keeps and options.again else [])


def run(part: Part, line: list[str], threads: int) -> dict[str, Any]:
    """Run one part; what it prints goes to the terminal.

    Raises:
        RuntimeError: It failed.
    """
    console.rule(part.name)
    started = time.perf_counter()
    status = subprocess.run(line, env={**os.environ, "OMP_NUM_THREADS": str(threads)}).returncode
    if status != 0:
        raise RuntimeError(f"{part.name} ended with {status}")
    return {"arguments": line[2:], "seconds": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for all results")
    parser.add_argument("--quick", action="store_true", help="smaller sizes: some minutes in all")
    parser.add_argument("--threads", type=int, default=1, help="of every part")
    parser.add_argument("--only", nargs="+", choices=[p.name for p in PARTS], help="these parts")
    parser.add_argument("--again", action="store_true", help="measure what is there once more")
    options = parser.parse_args()
    settings = {"quick": options.quick, "threads": options.threads}
    ledger = Ledger(options.out / "suite.json", settings)
    failed = []
    for part in PARTS:
        left_out = options.quick and part.quick is None
        if left_out or (options.only and part.name not in options.only):
            continue
        if options.again:
            ledger.results.pop(part.name, None)
        line = command(part, options.out, options)
        try:
            ledger.measure(part.name, lambda p=part, c=line: run(p, c, options.threads))
        except RuntimeError as error:
            console.print(f"[red]{error}[/red]")
            failed.append(part.name)
    text = summary(options.out)
    (options.out / "summary.md").write_text(text, encoding="utf-8")
    print(text, end="")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the same command goes on from here")


if __name__ == "__main__":
    main()
