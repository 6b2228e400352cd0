"""What the solvers cost beyond the cell evaluations they spend.

    python benchmarks/solver_overhead.py --out benchmarks/results/solver_overhead.json

Time: solving `steps` steps against the bare loop ``z = cell(z, injection)`` of as many
evaluations, at one batch size. All contestants of one model run interleaved in one process, and
every repetition yields one ratio to the bare loop beside it; the median ratio is reported, with
the smallest and largest. Memory: a fresh process per solver, the growth of its largest resident
size over what a bare loop needs (on a GPU: of the largest allocation), beside the planned history
(`deqcert.solvers.memory_bytes`). Weights are fresh: neither figure depends on their values.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from deqcert import models
from deqcert.solvers import SolverSpec, memory_bytes, solve

SOLVERS = ("picard", "anderson", "broyden")


class Problem:
    """One model's cell at one batch size, ready to be solved."""

    def __init__(self, name: str, rows: int, device: str) -> None:
        torch.manual_seed(0)
        self.model = models.inference_copy(models.build(name), device=torch.device(device))
        x = torch.rand(rows, *self.model.input_shape, device=device)
        self.rows = rows
        self.device = device
        with torch.no_grad():
            self.injection = self.model.inject(x)
            self.state0 = self.model.initial_state(self.injection)
        parts = [self.state0] if isinstance(self.state0, torch.Tensor) else self.state0
        self.features = sum(part[0].numel() for part in parts)

    @torch.no_grad()
    def bare(self, steps: int) -> None:
        """Apply the cell `steps` times."""
        state = self.state0
        for _ in range(steps):
            state = self.model.cell(state, self.injection)

    def solve(self, spec: SolverSpec) -> None:
        """Solve all rows."""
        solve(self.model.cell, self.state0, self.injection, spec=spec, sizes=(self.rows,))

    def seconds(self, work: Callable[[], None]) -> float:
        """Return the wall-clock seconds of `work`, waiting for the device."""
        start = time.perf_counter()
        work()
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def measure_time(problem: Problem, steps: int, repeats: int) -> dict[str, Any]:
    """Return the overhead of each solver: ratio to the bare loop minus 1."""
    contests: dict[str, Callable[[], None]] = {"bare": lambda: problem.bare(steps)}
    for name in SOLVERS:
        spec = SolverSpec(name, steps)
        contests[name] = lambda spec=spec: problem.solve(spec)
    for work in contests.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in contests}
    for repeat in range(repeats):
        # The order turns, so that no contestant always runs first.
        names = list(contests)
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            seconds[name].append(problem.seconds(contests[name]))
    report: dict[str, Any] = {"bare_seconds": statistics.median(seconds["bare"])}
    for name in SOLVERS:
        over = [t / b - 1 for t, b in zip(seconds[name], seconds["bare"], strict=True)]
        report[name] = {
            "seconds": statistics.median(seconds[name]),
            "overhead": statistics.median(over),
            "overhead_range": [min(over), max(over)],
        }
    return report


def peak_bytes(device: str, *, reset: bool = False) -> int:
    """Return this process's largest memory use, since the last reset where that is possible."""
    if device != "cpu":
        peak = torch.cuda.max_memory_allocated()
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return peak
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1 if platform.system() == "Darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    lines = status.read_text().splitlines()
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure_memory(model: str, rows: int, device: str, threads: int, spec: str) -> dict[str, int]:
    """Return planned history and measured growth over a bare loop; wants a process of its own."""
    torch.set_num_threads(threads)
    problem = Problem(model, rows, device)
    problem.bare(2)
    peak_bytes(device, reset=True)
    problem.bare(2)
    before = peak_bytes(device, reset=True)
    problem.solve(SolverSpec.parse(spec))
    planned = memory_bytes(spec, rows, problem.features)
    return {"history_bytes": planned, "extra_peak_bytes": peak_bytes(device) - before}


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``, computed in a new interpreter."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def machine(device: str) -> dict[str, Any]:
    """Return what the numbers were measured on."""
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def show(name: str, report: dict[str, Any]) -> None:
    print(
        f"\n{name}: {report['features']} numbers per state, {report['rows']} rows, "
        f"{report['steps']} steps, bare loop {report['bare_seconds']:.3f} s"
    )
    print(f"{'solver':10} {'seconds':>9} {'overhead':>9} {'range':>17} {'history':>9} {'extra':>9}")
    for solver in SOLVERS:
        row = report[solver]
        low, high = row["overhead_range"]
        print(
            f"{solver:10} {row['seconds']:9.3f} {row['overhead']:9.1%} "
            f"{f'{low:.1%} .. {high:.1%}':>17} {row['history_bytes'] / 1e6:6.0f} MB "
            f"{row['extra_peak_bytes'] / 1e6:6.0f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["mdeq-digits", "mdeq-small"])
    parser.add_argument("--rows", type=int, default=400, help="batch size")
    parser.add_argument("--steps", type=int, default=10, help="cell evaluations per solve")
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repetitions")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"machine": machine(options.device), "models": {}}
    for name in options.models:
        problem = Problem(name, options.rows, options.device)
        report: dict[str, Any] = {
            "features": problem.features,
            "rows": options.rows,
            "steps": options.steps,
            "repeats": options.repeats,
        }
        report |= measure_time(problem, options.steps, options.repeats)
        for solver in SOLVERS:
            report[solver] |= in_fresh_process(
                measure_memory,
                name,
                options.rows,
                options.device,
                options.threads,
                f"{solver}:{options.steps}",
            )
        show(name, report)
        results["models"][name] = report
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
