"""Can the loader keep up? Images per second it delivers, beside those that a model takes.

    python benchmarks/data_throughput.py --data-dir FOLDER --out FILE

The loader gathers random batches from memory, or decodes image files (`FolderDataset`). The model
spends one cell evaluation per image in inference, the least that anything could ask of an image:
training spends some ten times that and certification 10,000 times. Both are timed in turn in one
process, and each repetition yields one ratio, loader over model; above 1 the loader is never the
bottleneck even at one evaluation per image, and the smallest number of evaluations per image at
which it is none is written beside it. The last column is what loading in turn, without
`deqcert.data.prefetched`, adds to `--steps` evaluations per image. Image files are also timed with
1 to `--workers` decoding threads, and the centre crops that are certified beside the random resized
crops of training, both per second of processor time, which other processes do not lengthen. Data
sets that are not in the folder are named and left out.
Weights are fresh: no figure depends on their values.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine

from deqcert import models
from deqcert.data import Dataset, FolderDataset, load_data
from deqcert.errors import DataError
from deqcert.training import ResizedCrop
from deqcert.training.resized_crop import keyed_boxes

GREY = {"input_shape": (1, 28, 28), "mean": (0.3,), "std": (0.3,)}
CONTESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "digits": ("mdeq-digits", {}),
    "mnist": ("mdeq-small", GREY),
    "cifar10": ("mdeq-small", {}),
    "imagenet": ("mdeq-small-imagenet", {}),
}


class Consumer:
    """One model's cell on a batch, ready to be applied again and again."""

    def __init__(self, name: str, changes: dict[str, Any], rows: int, device: str) -> None:
        torch.manual_seed(0)
        self.model = models.inference_copy(models.build(name, **changes), device=device)
        self.device = device
        with torch.no_grad():
            images = torch.rand(rows, *self.model.input_shape, device=device)
            self.injection = self.model.inject(images)
            self.state = self.model.initial_state(self.injection)

    @torch.no_grad()
    def evaluate(self, steps: int = 1) -> None:
        """Apply the cell `steps` times, and wait for the device."""
        for _ in range(steps):
            self.state = self.model.cell(self.state, self.injection)
        if self.device != "cpu":
            torch.cuda.synchronize()


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def orders(data: Dataset, rows: int, count: int) -> list[np.ndarray]:  # count times (rows,)
    """Random batches, as training draws them; small sets repeat themselves."""
    generator = np.random.Generator(np.random.PCG64(0))
    return [generator.integers(0, len(data), rows) for _ in range(count)]


def measure_rates(data: Dataset, consumer: Consumer, rows: int, repeats: int) -> dict[str, Any]:
    """Return images per second of both sides, and their ratio."""
    data.batch(orders(data, rows, 1)[0])
    consumer.evaluate(2)
    loads, evaluations = [], []
    for order in orders(data, rows, repeats):
        loads.append(seconds(lambda order=order: data.batch(order)))
        evaluations.append(seconds(consumer.evaluate))
    ratios = [e / load for load, e in zip(loads, evaluations, strict=True)]
    ratio = statistics.median(ratios)
    return {
        "loader_images_per_second": rows / statistics.median(loads),
        "cell_images_per_second": rows / statistics.median(evaluations),
        "ratio": ratio,
        "ratio_range": [min(ratios), max(ratios)],
        "evaluations_that_cover_loading": max(1, math.ceil(1 / ratio)),
    }


def measure_workers(data: FolderDataset, rows: int, workers: int, repeats: int) -> dict[str, float]:
    """Return images per second by number of decoding threads, timed in turn."""
    counts = range(1, workers + 1)
    threaded = [dataclasses.replace(data, workers=count) for count in counts]
    times: list[list[float]] = [[] for _ in counts]
    for order in orders(data, rows, repeats):
        for own, contestant in zip(times, threaded, strict=True):
            own.append(seconds(lambda c=contestant, o=order: c.batch(o)))
    return {
        str(count): rows / statistics.median(own) for count, own in zip(counts, times, strict=True)
    }


def measure_crops(data: FolderDataset, rows: int, repeats: int) -> dict[str, float]:
    """Return images per second of processor time on one thread, crop by crop, timed in turn."""
    single = dataclasses.replace(data, workers=1)
    kinds = {"centre": None, "random resized": keyed_boxes(ResizedCrop(), seed=0, epoch=0)}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for order in orders(data, rows, repeats):
        for kind, choose in kinds.items():
            started = time.process_time()
            single.batch(order, choose=choose)
            times[kind].append(time.process_time() - started)
    return {kind: rows / statistics.median(own) for kind, own in times.items()}


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return all figures of one data set."""
    started = time.perf_counter()
    data = load_data(name, folder=options.data_dir, download=False)
    load_seconds = time.perf_counter() - started
    model, changes = CONTESTS[name]
    rows = options.image_rows if isinstance(data, FolderDataset) else options.rows
    consumer = Consumer(model, changes, rows, options.device)
    report: dict[str, Any] = {
        "images": len(data),
        "shape": list(data.input_shape),
        "model": model,
        "rows": rows,
        "open_seconds": load_seconds,
        "digest_seconds": seconds(lambda: data.digest),
        **measure_rates(data, consumer, rows, options.repeats),
        "steps": options.steps,
    }
    if isinstance(data, FolderDataset):
        report["images_per_second_by_workers"] = measure_workers(
            data, rows, options.workers, options.repeats
        )
        report["images_per_processor_second_by_crop"] = measure_crops(data, rows, options.repeats)
    return report


def show(name: str, report: dict[str, Any]) -> None:
    added = 1 / (report["ratio"] * report["steps"])
    print(
        f"{name:10} {report['model']:20} {report['loader_images_per_second']:11,.0f} "
        f"{report['cell_images_per_second']:11,.0f} {report['ratio']:8.2f} "
        f"{added:8.2%}"
    )
    for workers, rate in report.get("images_per_second_by_workers", {}).items():
        print(f"{'':10} {workers + ' decoding thread(s)':20} {rate:11,.0f}")
    for kind, rate in report.get("images_per_processor_second_by_crop", {}).items():
        print(f"{'':10} {kind + ' crops':20} {rate:11,.0f} per processor second")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-dir", type=Path, help="folder of the original files")
    parser.add_argument("--data", choices=CONTESTS, help="this data set alone; default all")
    parser.add_argument("--rows", type=int, default=128, help="batch size in memory")
    parser.add_argument("--image-rows", type=int, default=16, help="batch size of image files")
    parser.add_argument(
        "--repeats", type=int, default=9, help="batches timed, in turn with the cell"
    )
    parser.add_argument("--steps", type=int, default=14, help="evaluations per image")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"machine": machine(options.device), "data": {}, "absent": []}
    print(
        f"{'data set':10} {'model':20} {'loader im/s':>11} {'cell im/s':>11} {'ratio':>8} "
        f"{'added':>8}"
    )
    for name in [options.data] if options.data else CONTESTS:
        try:
            results["data"][name] = measure(name, options)
        except DataError as error:
            results["absent"].append(name)
            print(f"{name:10} left out: {error}")
            continue
        show(name, results["data"][name])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
