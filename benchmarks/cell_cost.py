"""Milliseconds per cell evaluation and sample: plain, fast and compiled, beside the floor.

    python benchmarks/cell_cost.py --out benchmarks/results/cell_cost.json [--beside "COMMAND"]

Ways to evaluate the same cell: `plain` (PyTorch's layers one by one, float32), `float32` and
`bfloat16` (the fast cell of `inference_copy`), and with `--compiled` what torch.compile makes of
the plain cell in both precisions, channels last (its start-up is given apart). All take turns.

`COMMAND MODEL ROWS` may run another implementation of the same architecture: a long-lived process
that answers each line on standard input by one timed cell evaluation, printed in seconds. It takes
turns with ours, so that both meet the same machine. The floor is what the cell's floating-point
operations take at the speed of a large matrix product or convolution, whichever is faster, in the
same precision and run, or what reading the state and writing it once takes at the copy speed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch.utils.flop_counter import FlopCounterMode

from deqcert.models import MDEQ, build, inference_copy
from deqcert.models.bfloat16_products import product_type
from deqcert.models.fused_cell import FusedCell
from deqcert.solvers.allocator import keep_freed_memory

MODELS = ("mdeq-small", "mdeq-large")
PRECISIONS = (torch.float32, torch.bfloat16)
_clock = time.perf_counter


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


class Cell:
    """One model with random weights, and ways to evaluate its cell."""

    def __init__(self, name: str, rows: int, *, compiled: bool) -> None:
        torch.manual_seed(0)
        model = build(name)
        assert isinstance(model, MDEQ)
        fast = inference_copy(model)
        plain = fast.f.plain if isinstance(fast.f, FusedCell) else fast.f
        images = torch.rand(rows, *model.input_shape)
        top, _ = fast.inject(images)
        state = fast.initial_state((top, None))
        self.state = plain(tuple(part.contiguous() for part in state), top.contiguous(), None)
        self.top = top.contiguous()
        self.started: dict[str, float] = {}
        self.ways: dict[str, Callable[[], Any]] = {}
        self._add("plain", plain, torch.float32, torch.contiguous_format)
        for dtype in PRECISIONS:
            kind = str(dtype).removeprefix("torch.")
            copied = inference_copy(model, dtype=dtype)
            self._add(kind, copied.f, dtype, torch.channels_last)
            if compiled:
                other = copied.f.plain if isinstance(copied.f, FusedCell) else copied.f
                made = torch.compile(other, dynamic=False)
                self._add(f"compiled {kind}", made, dtype, torch.channels_last)

    def _add(self, way: str, cell: Any, dtype: torch.dtype, order: torch.memory_format) -> None:
        *state, top = (part.to(dtype, memory_format=order) for part in (*self.state, self.top))
        self.ways[way] = lambda: cell(tuple(state), top, None)
        self.started[way] = _timed(self.ways[way])

    def flops(self) -> int:
        """Return the floating-point operations of one evaluation of all rows."""
        with FlopCounterMode(display=False) as counter:
            self.ways["plain"]()
        return counter.get_total_flops()

    def numbers(self) -> int:
        """Return the numbers of all states."""
        return sum(part.numel() for part in self.state)

    def floor_seconds(self, dtype: torch.dtype) -> float:
        """Return what one evaluation takes at the least: operations, or state read and written."""
        moved = 2 * self.numbers() * torch.finfo(dtype).bits / 8
        return max(self.flops() / flops_per_second(dtype), moved / copied_bytes_per_second())


def flops_per_second(dtype: torch.dtype, size: int = 1024) -> float:
    """Return the speed of a large matrix product or 3x3 convolution, operations per second.

    bfloat16 is multiplied in float32 where the processor has no instructions for it.
    """
    dtype = product_type(dtype)
    a, b = torch.rand(size, size).to(dtype), torch.rand(size, size).to(dtype)
    product = 2 * size**3 / min(_timed(lambda: a @ b) for _ in range(10))
    x = torch.rand(32, 256, 16, 16).to(dtype, memory_format=torch.channels_last)
    w = torch.rand(256, 256, 3, 3).to(dtype, memory_format=torch.channels_last)
    conv = (
        2
        * 9
        * 256
        * x.numel()
        / min(_timed(lambda: torch.nn.functional.conv2d(x, w, padding=1)) for _ in range(5))
    )
    return max(product, conv)


def copied_bytes_per_second(size: int = 1 << 26) -> float:
    """Return the speed of a copy of 256 MB, bytes read plus bytes written per second."""
    a, b = torch.rand(size), torch.empty(size)
    return 8 * size / min(_timed(lambda: b.copy_(a)) for _ in range(5))


def _timed(work: Callable[[], Any]) -> float:
    started = _clock()
    work()
    return _clock() - started


@torch.no_grad()
def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return milliseconds per sample of all ways and, in turns with them, of the other."""
    rows = options.rows
    cell = Cell(name, rows, compiled=options.compiled)
    other = Other(options.beside, name, rows) if options.beside else None
    times: dict[str, list[float]] = {way: [] for way in (*cell.ways, "other")}
    for repeat in range(options.repeats + 1):
        found = {way: _timed(run) for way, run in cell.ways.items()}
        if other is not None:
            found["other"] = other.seconds()
        for way, seconds in found.items():
            if repeat > 0:  # the first round warms up
                times[way].append(1000 * seconds / rows)
    if other is not None:
        other.close()
    floors = {dtype: 1000 * cell.floor_seconds(dtype) / rows for dtype in PRECISIONS}
    report: dict[str, Any] = {
        "rows": rows,
        "flops_per_sample": cell.flops() / rows,
        "state_bytes_per_sample": 4 * cell.numbers() / rows,
        # The default: float32, the fast cell.
        "ours_ms": statistics.median(times["float32"]),
        "floor_ms": floors[torch.float32],
        "ways": {way: _way(way, times, floors, cell.started[way]) for way in cell.ways},
    }
    if times["other"]:
        ratios = _ratios(times["other"], times["float32"])
        report["other_ms"] = statistics.median(times["other"])
        report["other_over_ours"] = statistics.median(ratios)
        report["other_over_ours_range"] = [min(ratios), max(ratios)]
    return report


def _way(
    way: str, times: dict[str, list[float]], floors: dict[torch.dtype, float], started: float
) -> dict[str, Any]:
    floor = floors[torch.bfloat16 if way.endswith("bfloat16") else torch.float32]
    ms = statistics.median(times[way])
    found = {
        "ms": ms,
        "plain_over_this": statistics.median(_ratios(times["plain"], times[way])),
        "floor_ms": floor,
        "share_of_floor": floor / ms,
        "first_call_seconds": started,
    }
    if times["other"]:
        found["other_over_this"] = statistics.median(_ratios(times["other"], times[way]))
    return found


def _ratios(above: list[float], below: list[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def show(name: str, report: dict[str, Any]) -> None:
    """Print one line for each way."""
    for way, found in report["ways"].items():
        line = (
            f"{name}, {way}: {found['ms']:.3f} ms, floor {found['floor_ms']:.3f} ms "
            f"({found['share_of_floor']:.0%}), plain {found['plain_over_this']:.2f} times this"
        )
        if "other_over_this" in found:
            line += f", other {found['other_over_this']:.2f} times"
        print(line, flush=True)


def main() -> None:
    global _clock
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compiled", action="store_true", help="also by torch.compile")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="ours by the processor's time instead of the clock's: one thread, shared machine",
    )
    parser.add_argument("--beside", help="command of another implementation, see above")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.processor_time:
        if options.threads > 1 or options.beside:
            parser.error("--processor-time is for one thread and nothing beside it")
        _clock = time.process_time
    keep_freed_memory()  # as solves do
    settings = {key: getattr(options, key) for key in ("rows", "threads", "processor_time")}
    results: dict[str, Any] = {
        "machine": machine(),
        "settings": settings,
        "beside": bool(options.beside),
        "models": {},
    }
    for name in options.models:
        results["models"][name] = measure(name, options)
        show(name, results["models"][name])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
