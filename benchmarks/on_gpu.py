"""Milliseconds per draw on a GPU, against its peak and against what its cells take alone.

    python benchmarks/on_gpu.py --minutes 9 --out benchmarks/results/on_gpu

Standard certificates of random images, every model, precision, solver and stream of noise in turn,
each in three ways: by the plain parts, by the fused ones (Triton kernels), and by these with solves
replayed as CUDA graphs, as certificates are made. Beside each: the solves of one hardware batch
alone; the share of their floor that these reach; and what did compute: which cell, and how many
solves are recorded. The floor is what the convolutions would take, one after the other, if each
were bound by its operations at the speed of a large matrix product of that precision (float32
without TF32), or by reading its input and weight and writing its result once at the speed of a
copy, both measured in the same run. What is there is not measured again, and after `--minutes`
nothing further is begun (exit code 75): slices of minutes add up. OUT.md is the table.
`--device cpu` shows that it works, no more.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from console import console, markdown
from contest import Work, certifier, certify, computed_by, load
from ledger import Ledger
from torch import Tensor, nn

import deqcert as dc
from deqcert.errors import ConfigurationError
from deqcert.models import solve_rows
from deqcert.models.fast_part import plain_parts
from deqcert.models.graphs import unrecorded

PAUSED = 75
STREAMS = ("device", "host")
WAYS = ("plain", "fused", "graphs")
_UNTIL_RECORDED = 6


def timed(work: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    """Return the seconds of one call, the least of some; the first one warms up."""
    found = []
    for _ in range(repeats + 1):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        found.append(time.perf_counter() - started)
    return min(found[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def way(model: Any, name: str) -> Iterator[None]:
    """Let a model solve by the plain cell, by the fused one, or by replayed graphs of it."""
    with ExitStack() as stack:
        if name != "graphs":
            stack.enter_context(unrecorded(model))
        if name == "plain":
            stack.enter_context(plain_parts(model))
        yield


@dataclass(frozen=True)
class Speed:
    """What a device does in a second at most.

    Attributes:
        operations: In a large matrix product.
        bytes: Read and written by a large copy.
    """

    operations: float
    bytes: float

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype) -> Speed:
        """Measure it."""
        size = 8192 if device.type == "cuda" else 512
        a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
        operations = 2 * size**3 / timed(lambda: a @ b, device)
        x = torch.zeros(16 * size**2, dtype=torch.uint8, device=device)
        y = torch.empty_like(x)
        return cls(operations, 2 * len(x) / timed(lambda: y.copy_(x), device))


@dataclass
class Layers:
    """The convolutions of a solve."""

    operations: float = 0.0
    floor: float = 0.0  # seconds

    @contextmanager
    def noted(self, model: nn.Module, speed: Speed) -> Iterator[None]:
        """Add up what is convolved, by the plain parts of a model."""

        def note(conv: Any, given: tuple[Tensor, ...], out: Tensor) -> None:
            operations = 2 * out.numel() * conv.weight[0].numel()
            moved = sum(x.numel() * x.element_size() for x in (given[0], conv.weight, out))
            self.operations += operations
            self.floor += max(operations / speed.operations, moved / speed.bytes)

        convs = [part for part in model.modules() if isinstance(part, nn.Conv2d)]
        hooks = [conv.register_forward_hook(note) for conv in convs]
        try:
            with plain_parts(model), unrecorded(model):
                yield
        finally:
            for hook in hooks:
                hook.remove()


@torch.no_grad()
def measure(ours: dc.Certifier, draws: int) -> dict[str, Any]:
    """Return the times of one certifier, and what its convolutions are."""
    classifier, rows, device = ours.classifier, ours.batch_size, ours.classifier.device
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(rows, *classifier.input_shape, generator=generator)
    moved = images.to(device=device, dtype=classifier.dtype)

    def solves() -> Any:
        return solve_rows(classifier.model, moved, classifier.spec)

    layers, speed = Layers(), Speed.of(device, classifier.dtype)
    with layers.noted(classifier.model, speed):
        solves()
    for _ in range(_UNTIL_RECORDED):
        solves()
        solve_rows(classifier.model, moved[: ours.settings.n0], classifier.spec)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    alone = timed(solves, device)
    certify(ours, images[0], 0, seed=1)  # warms up
    seconds = certify(ours, images[0], 0, seed=0)["seconds"]
    return {
        "rows": rows,
        "gigaflops_per_draw": layers.operations / rows / 1e9,
        "ms_per_draw": 1000 * seconds / draws,
        "solves_ms_per_draw": 1000 * alone / rows,
        **computed_by(ours),
        "floor_ms_per_draw": 1000 * layers.floor / rows,
        "peak_operations_per_second": speed.operations,
        "peak_bytes_per_second": speed.bytes,
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


def measured(name: str, changes: dict[str, Any], work: Work, how: str) -> dict[str, Any]:
    """Return the times of a model computed in one way."""
    ours = certifier(load(name), work, **changes)
    with way(ours.classifier.model, how):
        return {"way": how, **measure(ours, work.draws)}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    head = ["model, precision, solver, noise, way", "rows", "ms per draw", "solves alone"]
    head += ["over solves", "floor", "solves reach", "peak memory", "cell", "recordings"]
    body = []
    for key, row in results.items():
        memory = row["peak_bytes"]
        body.append(
            [
                key,
                str(row["rows"]),
                f"{row['ms_per_draw']:.4f}",
                f"{row['solves_ms_per_draw']:.4f}",
                f"{row['ms_per_draw'] / row['solves_ms_per_draw']:.2f}",
                f"{row['floor_ms_per_draw']:.4f}",
                f"{100 * row['floor_ms_per_draw'] / row['solves_ms_per_draw']:.0f} %",
                "-" if memory is None else f"{memory / 1e6:.0f} MB",
                row["cell"],
                str(row["recordings"]),
            ]
        )
    return markdown(head, body)


def main() -> int:
    """Run it; return `PAUSED` if something is left."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="OUT.json and OUT.md")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=["mdeq-small-s050", "mdeq-large:random"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--solvers", nargs="+", default=["picard:3", "anderson:30"])
    parser.add_argument("--streams", nargs="+", default=list(STREAMS), choices=STREAMS)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--n", type=int, default=10_000, help="draws of a certificate")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing later")
    parser.add_argument("--again", action="store_true", help="measure everything once more")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    settings = {"n": options.n, "device": options.device}
    out = options.out.with_suffix(".json")
    ledger = Ledger(out, settings, again=options.again, device=options.device)
    cases = (options.models, options.precisions, options.solvers, options.streams, options.ways)
    for name, precision, solver, stream, how in itertools.product(*cases):
        key = f"{name}, {precision}, {solver}, {stream}, {how}"
        if key not in ledger.results and time.monotonic() >= end:
            return PAUSED
        changes = {
            "dtype": precision,
            "reference": solver,
            "device": options.device,
            "noise_stream": stream,
        }
        work = Work(n=options.n)

        try:
            row = ledger.measure(key, partial(measured, name, changes, work, how))
        except ConfigurationError as refused:
            console.print(f"{key}: left out: {refused}")
            continue
        console.print(f"{key}: {row['ms_per_draw']:.4f} ms per draw")
        options.out.with_suffix(".md").write_text(table(ledger.results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
