"""Milliseconds per draw against the batch size, the model's size and the number of images.

    python benchmarks/cost_against_size.py --out benchmarks/results/cost_against_size.json

Standard certificates with `--steps` Picard steps. The batch size never changes a label, so it is
chosen for speed alone; larger models cost in proportion to their arithmetic; and every image costs
the same, so that time grows with their number.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from console import markdown, track
from contest import Work, certifier, certify, load, use_threads
from ledger import Ledger

from deqcert.models import BATCH_SIZES, MDEQ


def images_of(model: MDEQ, count: int) -> torch.Tensor:  # (count, C, H, W)
    """Return made-up images: what they show does not change what a fixed number of steps costs."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, *model.input_shape, generator=generator)


def measure(name: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """Certify several images with one batch size and return what each took."""
    model = load(name)
    work = Work(n0=batch, n=batch * options.batches, batch=batch)
    ours = certifier(model, work, reference=f"picard:{options.steps}", sigma=options.sigma)
    ours.predict(images_of(model, 1)[0], n=batch, seed=1)  # warms up
    found = [certify(ours, x, k, 0) for k, x in enumerate(images_of(model, options.images))]
    seconds = [f["seconds"] for f in found]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "draws": work.draws,
        "image_seconds": seconds,
        "ms_per_draw": 1000 * statistics.median(seconds) / work.draws,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--models", nargs="+", default=["mdeq-digits-s050", "mdeq-small-s050", "mdeq-large:random"]
    )
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=list(BATCH_SIZES))
    parser.add_argument("--batches", type=int, default=2, help="hardware batches per image")
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="Picard steps per draw")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--again", action="store_true", help="measure what is there once more")
    options = parser.parse_args()
    use_threads(options.threads)
    fixed = ("batches", "images", "steps", "sigma", "threads")
    ledger = Ledger(options.out, {k: getattr(options, k) for k in fixed}, again=options.again)
    pairs = [(name, batch) for name in options.models for batch in options.batch_sizes]
    for name, batch in track(pairs, "batch and model size"):
        ledger.measure(f"{name}, batch {batch}", lambda n=name, b=batch: measure(n, b, options))
    body = [
        [
            name,
            *(
                f"{ledger.results[f'{name}, batch {batch}']['ms_per_draw']:.3f}"
                for batch in options.batch_sizes
            ),
        ]
        for name in options.models
    ]
    text = markdown(["ms per draw", *map(str, options.batch_sizes)], body)
    print(text, end="")
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
