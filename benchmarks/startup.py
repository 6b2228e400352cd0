"""How long `deqcert --help` takes, and which imports take it.

    python benchmarks/startup.py --out benchmarks/results/startup.json

Processor seconds beside those of the clock: they hardly depend on what else the machine does. A
test (tests/test_startup.py) sees to it that none of the large libraries is imported.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import machine

COMMANDS = ((), ("certify",), ("watch",), ("report",))
PROGRAM = "import sys; sys.argv[0] = 'deqcert'; from deqcert.cli import main; main()"
# self microseconds | cumulative microseconds | (indented) module
_LINE = re.compile(r"import time:\s+\d+ \|\s+(\d+) \|( +)(\S+)")


def measure(command: tuple[str, ...], repeats: int) -> dict[str, Any]:
    """Return the median times of ``deqcert COMMAND --help``."""
    line = [sys.executable, "-c", PROGRAM, *command, "--help"]
    clock, processor = [], []
    for _ in range(repeats):
        before, started = os.times(), time.perf_counter()
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        clock.append(time.perf_counter() - started)
        after = os.times()
        processor.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
    return {
        "command": " ".join(["deqcert", *command, "--help"]),
        "seconds": statistics.median(clock),
        "processor_seconds": statistics.median(processor),
    }


def profile(most: int = 12) -> dict[str, float]:
    """Return the milliseconds of the slowest imports, with all that they import in turn."""
    line = [sys.executable, "-X", "importtime", "-c", PROGRAM, "--help"]
    shown = subprocess.run(line, check=True, capture_output=True, text=True).stderr
    found = {match[3]: int(match[1]) / 1000 for match in _LINE.finditer(shown)}
    slowest = sorted(found.items(), key=lambda item: -item[1])[:most]
    return dict(slowest)


def table(results: dict[str, Any]) -> str:
    """Return the times as Markdown."""
    rows = ["| command | seconds | of the processor |", "| --- | ---: | ---: |"]
    rows += [
        f"| `{row['command']}` | {row['seconds']:.3f} | {row['processor_seconds']:.3f} |"
        for row in results["commands"]
    ]
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="as in every part of the suite")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "repeats": options.repeats}
    results["commands"] = [measure(command, options.repeats) for command in COMMANDS]
    print(table(results))
    results["imports_milliseconds"] = profile()
    for name, spent in results["imports_milliseconds"].items():
        print(f"  {name:26} {spent:7.1f} ms")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
