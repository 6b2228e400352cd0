"""Compile what models launch on a GPU, several at once: once per machine, then it is on disk.

    python benchmarks/warm_kernels.py

Each model and precision has a process of its own, since a compiler works on one kernel after the
other; `mdeq-large` alone takes a minute.
"""

from __future__ import annotations

import argparse
import itertools
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from console import console
from contest import load

from deqcert.models import inference_copy, solve_rows

ROWS = 16  # no machine code depends on it


def warm(name: str, precision: str, device: str) -> tuple[str, float]:
    """Solve and classify some rows; return what, and the seconds."""
    started = time.perf_counter()
    dtype = getattr(torch, precision)
    model = inference_copy(load(name), dtype=dtype, device=device)
    images = torch.rand(ROWS, *model.input_shape).to(device, dtype)
    for spec in ("anderson:8", "picard:2"):
        solve_rows(model, images, spec)
    return f"{name}, {precision}", time.perf_counter() - started


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=["mdeq-large:random", "mdeq-small-s050"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    jobs = list(itertools.product(options.models, options.precisions))
    # Processes that begin anew: one that is forked cannot use a GPU.
    with ProcessPoolExecutor(len(jobs), mp_context=get_context("spawn")) as pool:
        coming = [pool.submit(warm, *job, options.device) for job in jobs]
        for job in coming:
            what, seconds = job.result()
            console.print(f"{what}: {seconds:.0f} s")


if __name__ == "__main__":
    main()
