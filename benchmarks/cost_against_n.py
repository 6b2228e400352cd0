"""Seconds, cell evaluations and peak memory of one certificate against the number of draws n.

    python benchmarks/cost_against_n.py --out benchmarks/results/cost_against_n.json

Each n runs in a fresh process, so that its peak memory is its own; the same image and seed every
time. Time should grow linearly and memory stay flat: noise is made again from its keys, and of a
draw only two bytes are kept (for `srs`; nothing for `standard`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from machine import machine

import deqcert as dc

METHODS = ("standard", "srs")
DRAWS = (1_000, 3_000, 10_000, 30_000, 100_000)


def certify(method: str, n: int, options: argparse.Namespace, queue: multiprocessing.Queue) -> None:
    """Certify one image and report what it took, memory before and after included."""
    torch.set_num_threads(options.threads)
    # What the model was trained at changes neither time nor memory.
    warnings.simplefilter("ignore", dc.NumericalWarning)
    model = dc.load_model(options.model)
    # A fixed share is audited, so that both methods do work in proportion to n.
    certifier = dc.Certifier(model, sigma=options.sigma, n=n, method=method, audit=0.1)
    image = torch.rand(model.input_shape, generator=torch.Generator().manual_seed(0))
    certifier.certify(image, seed=1)  # warm up the kernels' own buffers
    started = time.perf_counter()
    certificate = certifier.certify(image, seed=0)
    queue.put(
        {
            "n": n,
            "seconds": time.perf_counter() - started,
            "cell_evaluations": certificate.cell_evaluations,
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    )


def in_fresh_process(method: str, n: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run `certify` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=certify, args=(method, n, options, queue))
    process.start()
    found = queue.get()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--model", default="mdeq-digits", help="a name of the zoo")
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--draws", type=int, nargs="+", default=list(DRAWS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"machine": machine()}
    results |= {"model": options.model, "sigma": options.sigma}
    print(f"{'method':10} {'n':>8} {'seconds':>9} {'ms/draw':>9} {'cell ev.':>10} {'peak MB':>9}")
    for method in METHODS:
        rows = []
        for n in options.draws:
            row = in_fresh_process(method, n, options)
            rows.append(row)
            print(
                f"{method:10} {n:8} {row['seconds']:9.2f} {1000 * row['seconds'] / n:9.4f} "
                f"{row['cell_evaluations']:10} {row['peak_megabytes']:9.0f}"
            )
        results[method] = rows
        first, last = rows[0]["peak_megabytes"], rows[-1]["peak_megabytes"]
        growth = f"peak memory at n = {options.draws[-1]:,} over that at n = {options.draws[0]:,}"
        print(f"{method}: {growth}: {last / first:.3f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
