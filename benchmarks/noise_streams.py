"""What a draw of noise costs under each stream, and what the device's one asks of a device.

    python benchmarks/noise_streams.py --out benchmarks/results/noise_streams.json
    python benchmarks/noise_streams.py --device cuda --out bench/noise_streams_cuda.json

Microseconds per draw: of the processor on a CPU, where the streams take turns; of the clock on a
GPU. Besides, the operations (kernels, on a GPU) that one batch of the device's stream takes in the
portions of a GPU, and the bytes that these read and write: counted, whatever it runs on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import machine
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deqcert.smoothing import NOISE_STREAMS, NoiseSource
from deqcert.smoothing.streams import AT_ONCE_GPU, DeviceStream, make_stream

SHAPES = {"digits": (1, 8, 8), "cifar10": (3, 32, 32), "imagenet": (3, 224, 224)}
ROWS = {"digits": 400, "cifar10": 400, "imagenet": 16}


class Traffic(TorchDispatchMode):
    """Counts operations that compute, and the bytes they touch."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        # Views and fresh memory compute nothing.
        if not func.is_view and not str(func).startswith(("aten.empty", "aten.new_empty")):
            read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            wrote = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
            fresh = [t for t in wrote if all(t is not other for other in read)]
            changed = [t for t in wrote if any(t is other for other in read)]
            self.operations += 1
            self.bytes += sum(touched(t) for t in (*read, *fresh, *changed))
            if (kwargs or {}).get("out") is not None:
                self.bytes -= touched(kwargs["out"])  # written, not read as well
        return out


def touched(tensor: Tensor) -> int:
    """Return the bytes of the memory that a tensor's numbers lie in; halves count whole."""
    kept = [(n, step) for n, step in zip(tensor.shape, tensor.stride(), strict=True) if step > 0]
    numbers = 1
    for n, _ in kept:
        numbers *= n
    step = min((step for n, step in kept if n > 1), default=1)
    return numbers * tensor.element_size() * min(step, 2)


def per_draw(work: Callable[[int], Tensor], rows: int, repeats: int, device: str) -> float:
    """Return the median microseconds per draw of making `rows` draws."""
    found = []
    for turn in range(repeats + 1):
        before, started = time.process_time(), time.perf_counter()
        work(turn * rows)
        if device != "cpu":
            torch.cuda.synchronize()
        spent = time.perf_counter() - started if device != "cpu" else time.process_time() - before
        found.append(spent / rows * 1e6)
    return statistics.median(found[1:])


def measure(name: str, repeats: int, device: str) -> dict[str, Any]:
    """Return the costs of the draws of one data set."""
    rows, shape = ROWS[name], SHAPES[name]
    costs: dict[str, float] = {}
    for stream in NOISE_STREAMS:
        made = make_stream(stream, torch.device(device))
        source = NoiseSource(seed=0, index=0, shape=shape, sigma=0.5, stream=made)
        costs[stream] = per_draw(
            lambda first, source=source: source.draws("bench", range(first, first + rows)),
            rows,
            repeats,
            device,
        )
    as_there = DeviceStream(torch.device(device), AT_ONCE_GPU)
    with Traffic() as traffic:
        NoiseSource(seed=0, index=0, shape=shape, sigma=0.5, stream=as_there).draws(
            "bench", range(rows)
        )
    numbers = rows * int(torch.Size(shape).numel())
    return {
        "shape": shape,
        "rows": rows,
        "microseconds_per_draw": costs,
        "operations_per_batch": traffic.operations,
        "bytes_per_number": traffic.bytes / numbers,
    }


def table(results: dict[str, Any]) -> str:
    """Return the costs as Markdown; microseconds are per draw."""
    rows = [
        "| draws | rows | host's, us | device's, us | operations | bytes per number |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in results["draws"].items():
        host, own = (row["microseconds_per_draw"][stream] for stream in NOISE_STREAMS)
        rows.append(
            f"| {name} | {row['rows']} | {host:.1f} | {own:.1f} | {row['operations_per_batch']} "
            f"| {row['bytes_per_number']:.0f} |"
        )
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--device", default="cpu", help="where the device's stream is made")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--draws", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"machine": machine(options.device), "repeats": options.repeats}
    results["draws"] = {n: measure(n, options.repeats, options.device) for n in options.draws}
    print(table(results))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
