"""Milliseconds per cell evaluation and sample, beside another implementation and the floor.

    python benchmarks/cell_cost.py --out benchmarks/results/cell_cost.json [--beside "COMMAND"]

`COMMAND MODEL ROWS` may run another implementation of the same architecture: a long-lived process
that answers each line on standard input by one timed cell evaluation, printed in seconds. It takes
turns with ours, so that both meet the same machine. The floor is what the cell's floating-point
operations take at the matrix-product speed measured in the same run, and what reading the state and
writing it once takes at the measured copy speed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch.utils.flop_counter import FlopCounterMode

from deqcert.models import EquilibriumModel, build, inference_copy

MODELS = ("mdeq-small", "mdeq-large")


class Other:
    """Another implementation in a process of its own, silent while it is not asked."""

    def __init__(self, command: str, model: str, rows: int) -> None:
        self._process = subprocess.Popen(
            [*shlex.split(command), model, str(rows)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self) -> float:
        """Return the seconds of one cell evaluation."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Ours:
    """One cell evaluation of a folded model with random weights."""

    def __init__(self, name: str, rows: int) -> None:
        torch.manual_seed(0)
        self.model: EquilibriumModel = inference_copy(build(name))
        self.injection = self.model.inject(torch.rand(rows, *self.model.input_shape))
        self.state = self.model.cell(self.model.initial_state(self.injection), self.injection)

    def seconds(self) -> float:
        """Return the seconds of one cell evaluation."""
        started = time.perf_counter()
        self.model.cell(self.state, self.injection)
        return time.perf_counter() - started

    def flops(self) -> int:
        """Return the floating-point operations of one evaluation of all rows."""
        with FlopCounterMode(display=False) as counter:
            self.model.cell(self.state, self.injection)
        return counter.get_total_flops()

    def state_bytes(self) -> int:
        """Return the bytes of all states: read once and written once at the least."""
        parts = (self.state,) if isinstance(self.state, torch.Tensor) else self.state
        return sum(part.numel() * part.element_size() for part in parts)


def matmul_flops_per_second(size: int = 1024) -> float:
    """Return the speed of a float32 matrix product, operations per second."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    return 2 * size**3 / min(_timed(lambda: a @ b) for _ in range(10))


def copied_bytes_per_second(size: int = 1 << 26) -> float:
    """Return the speed of a copy of 256 MB, bytes read plus bytes written per second."""
    a, b = torch.rand(size), torch.empty(size)
    return 8 * size / min(_timed(lambda: b.copy_(a)) for _ in range(5))


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@torch.no_grad()
def measure(name: str, rows: int, repeats: int, beside: str | None) -> dict[str, Any]:
    """Return milliseconds per sample of ours and, in turns with it, of the other."""
    ours = Ours(name, rows)
    other = Other(beside, name, rows) if beside else None
    times: dict[str, list[float]] = {"ours": [], "other": []}
    for repeat in range(repeats + 1):
        found = {"ours": ours.seconds(), "other": other.seconds() if other else None}
        for who, seconds in found.items():
            if repeat > 0 and seconds is not None:  # the first round warms up
                times[who].append(1000 * seconds / rows)
    if other is not None:
        other.close()
    flops, state = ours.flops(), ours.state_bytes()
    floor = max(flops / matmul_flops_per_second(), 2 * state / copied_bytes_per_second())
    report = {
        "rows": rows,
        "ours_ms": statistics.median(times["ours"]),
        "flops_per_sample": flops / rows,
        "state_bytes_per_sample": state / rows,
        "floor_ms": 1000 * floor / rows,
    }
    if times["other"]:
        ratios = [o / m for o, m in zip(times["other"], times["ours"], strict=True)]
        report["other_ms"] = statistics.median(times["other"])
        report["other_over_ours"] = statistics.median(ratios)
        report["other_over_ours_range"] = [min(ratios), max(ratios)]
    return report


def show(name: str, report: dict[str, Any]) -> None:
    """Print one line."""
    ours, floor = report["ours_ms"], report["floor_ms"]
    line = f"{name}: {ours:.3f} ms, floor {floor:.3f} ms ({floor / ours:.0%})"
    if "other_ms" in report:
        ratio = report["other_over_ours"]
        line += f", other {report['other_ms']:.3f} ms, {ratio:.2f} times ours"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--beside", help="command of another implementation, see above")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"machine": machine(), "beside": bool(options.beside), "models": {}}
    for name in MODELS:
        report = measure(name, options.rows, options.repeats, options.beside)
        results["models"][name] = report
        share = report["floor_ms"] / report["ours_ms"]
        line = (
            f"{name}: {report['ours_ms']:.3f} ms, floor {report['floor_ms']:.3f} ms ({share:.0%})"
        )
        if "other_ms" in report:
            line += (
                f", other {report['other_ms']:.3f} ms, {report['other_over_ours']:.2f} times ours"
            )
        print(line, flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
