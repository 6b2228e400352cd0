"""Certificates of the same images by ours and by another implementation: radii and times.

    python benchmarks/certify_beside.py --beside "COMMAND" --out benchmarks/results/FILE.json

Standard smoothing on both sides, with the same weights, 30 Anderson steps, n, n0, sigma and alpha,
in full (nothing scaled), on digits, whose model is small enough for that. Each side draws its own
noise, so radii of the same image differ by the sampling error of both; the table counts how many
do so by more than 2.6 of its standard deviations (1 % expected).
"""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from beside import Beside
from console import track
from contest import Work, agreement, certifier, certify, load, sampler, use_threads
from ledger import Ledger

import deqcert as dc
from deqcert.stats import certified_radius, clopper_pearson_lower

APART = 2.576  # two-sided 1 %


def both(ours: dc.Certifier, other: Beside, example: dc.Example, work: Work) -> dict[str, Any]:
    """Certify one image on both sides."""
    theirs = other.certify(example.image, method="standard", tolerance=0.0, **asdict(work))
    found = certify(ours, example.image, example.index, work.seed)
    return {"label": example.label, "ours": found, "other": theirs}


def chance(counts: list[int], work: Work) -> tuple[float, float]:
    """Return the smallest and largest radius that other noise could give, from our counts."""
    count = max(counts)
    error = APART * math.sqrt(2) * math.sqrt(max(count * (work.n - count) / work.n, 1.0))
    ends = (max(count - math.ceil(error), 0), min(count + math.ceil(error), work.n))
    low, high = (clopper_pearson_lower(end, work.n, work.alpha) for end in ends)
    return certified_radius(low, work.sigma), certified_radius(high, work.sigma)


def summary(images: list[dict[str, Any]], work: Work) -> dict[str, Any]:
    """Return mean times and radii, and how many radii are further apart than chance has it."""
    apart = 0
    for image in images:
        low, high = chance(image["ours"]["counts"], work)
        same = image["ours"]["prediction"] == image["other"]["prediction"]
        apart += not (low <= image["other"]["radius"] <= high) or not (same or low == 0.0)
    ratios = [i["other"]["seconds"] / i["ours"]["seconds"] for i in images]
    return {
        "images": len(images),
        "n": work.n,
        "sigma": work.sigma,
        "ours_seconds": statistics.fmean(i["ours"]["seconds"] for i in images),
        "other_seconds": statistics.fmean(i["other"]["seconds"] for i in images),
        "other_over_ours": statistics.median(ratios),
        "other_over_ours_range": [min(ratios), max(ratios)],
        "ours_mean_radius": statistics.fmean(i["ours"]["radius"] for i in images),
        "other_mean_radius": statistics.fmean(i["other"]["radius"] for i in images),
        "further_apart_than_chance": apart,
        "other_peak_megabytes": max(i["other"].get("peak_megabytes", 0.0) for i in images),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--beside", required=True, help="command of the other implementation")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--model", default="mdeq-digits-s050")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--skip", type=int, default=39, help="every so many-th test image")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=30, help="Anderson steps of a solve")
    parser.add_argument("--batch", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure what is there once more")
    options = parser.parse_args()
    use_threads(options.threads)
    settings = {k: v for k, v in vars(options).items() if k not in ("beside", "out", "again")}
    ledger = Ledger(options.out, settings, again=options.again)
    model = load(options.model)
    data = dc.load_data(options.data, split="test")
    work = Work(sigma=options.sigma, n=options.n, batch=options.batch, steps=options.steps)
    ours = certifier(model, work)
    images = []
    with Beside(options.beside) as other:
        ledger.note("beside", other.facts)
        other.load(model, threads=options.threads)
        noisy = sampler(ours, data[0].image, 0, 1).noisy("estimation", range(options.batch))
        how = {"steps": work.steps, "tolerance": 0.0, "batch": work.batch}
        ledger.measure(
            "labels", lambda: agreement(ours, noisy, other.labels(noisy, **how)["labels"])
        )
        for place in track(range(options.images), f"{options.model} on both sides"):
            example = data[place * options.skip]
            images.append(
                ledger.measure(f"image {place}", lambda e=example: both(ours, other, e, work))
            )
    ledger.note("summary", summary(images, work))
    for name, value in ledger.content["summary"].items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
