"""How long the HTML report of many images takes, and how large it is.

    python benchmarks/report_page.py --images 10000 --out FILE

Makes a run folder of that many records like those of a CIFAR-10 run (10 classes, joint audits,
independent solves, proved solver statistics, noisy 32 x 32 thumbnails at their usual 400 bytes),
then times `report(..., html=True)` in a fresh process, imports included, several times. The limits
are 10 seconds and 15 MB (of 10^6 bytes) for 10,000 images; the exit code is 1 beyond them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from deqcert.results.thumbnails import THUMBNAILS, thumbnail_line
from deqcert.stats import (
    JointRegion,
    certified_radius,
    clopper_pearson_lower,
    theorem_a_joint_lower,
)

CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
N, N0, ALPHA, SIGMA = 10_000, 100, 0.001, 0.5
SECONDS, MEGABYTES = 10.0, 15.0
MAKE = """
import sys
from deqcert.results import report
report(sys.argv[1], html=True, out=sys.argv[2])
"""


def record(index: int, generator: np.random.Generator, audited: bool) -> dict[str, Any]:
    """One record, its bound and radius those of its counts."""
    label = int(generator.integers(10))
    p = float(np.clip(generator.beta(2.2, 0.8), 0.02, 0.9995))
    rest = generator.dirichlet(np.full(9, 0.3)) * (1 - p)
    chosen = label if generator.random() < 0.8 else int(generator.integers(10))
    counts = generator.multinomial(N, np.insert(rest, chosen, p))
    count, audit, drawn, plan = int(counts[chosen]), None, 0, {"method": "standard"}
    if audited and count > 5500:
        drawn = int(generator.integers(300, 1200))
        wrong = int(generator.binomial(drawn, 0.002))
        audit = {
            "population": count,
            "drawn": drawn,
            "disagreements": wrong,
            "upper_bound": None,
        }
        weight = float(generator.choice([0.5, 0.7, 0.9]))
        plan = {"method": "srs", "rule": "theorem-a-joint", "weight": weight, "strip": 0.02}
        p_lower = theorem_a_joint_lower(
            count=count,
            n=N,
            drawn=drawn,
            disagreements=wrong,
            region=JointRegion(ALPHA, weight, 0.02),
        )
        count -= wrong
    else:
        p_lower = float(clopper_pearson_lower(count, N, ALPHA))
    radius = certified_radius(p_lower, SIGMA)
    prediction = chosen if radius > 0 else None
    steps = np.sort(generator.integers(3, 31, 5)).astype(float).tolist()
    residual = np.sort(10 ** generator.uniform(-4, -1, 5)).round(5).tolist()
    quantiles = ("0", "0.5", "0.9", "0.99", "1")
    return {
        "prediction": prediction,
        "radius": radius,
        "p_lower": p_lower,
        "guarantee": "standard" if audit is None else "audited",
        "method": "srs",
        "sigma": SIGMA,
        "alpha": ALPHA,
        "alpha_count": ALPHA if audit is None else None,
        "alpha_audit": 0.0 if audit is None else None,
        "n0": N0,
        "n": N,
        "counts0": generator.multinomial(N0, counts / N).tolist(),
        "counts": counts.tolist(),
        "count": count,
        "audit": audit,
        "reference": {
            "weights_digest": "ab" * 32,
            "solver": "anderson:30",
            "precision": "float32",
            "margin": 1e-5,
        },
        "serial": None if audit is None else "anderson:3",
        "warmup": None if audit is None else "anderson:10",
        "start": None if audit is None else "previous",
        "chains": None if audit is None else 400,
        "noise": "numpy-philox-block16-float32-v1",
        "seed": 0,
        "index": index,
        "plan": {**plan, "reason": "the cheapest audit expected within the slack"},
        "steps": dict(zip(quantiles, steps, strict=True)),
        "residual": dict(zip(quantiles, residual, strict=True)),
        "unconverged": 0,
        "cell_evaluations": 33_000 + 30 * drawn,
        "seconds": float(generator.uniform(1, 4)),
        "label": label,
        "correct": prediction == label,
        "status": "abstained" if prediction is None else "certified",
    }


def make_run(folder: Path, images: int, *, thumbnail_bytes: int) -> None:
    """Write the run folder; every second image of a clear class has an audit."""
    generator = np.random.Generator(np.random.PCG64(0))
    configuration = {
        **{"method": "srs", "sigma": SIGMA, "n0": N0, "n": N, "alpha": ALPHA, "audit": "auto"},
        **{"data": "cifar10", "split": "test", "data_digest": "cd" * 32, "skip": 1, "seed": 0},
        "class_names": list(CLASSES),
    }
    content = {"format": 1, "configuration": configuration, "environments": [{"device": "cpu"}]}
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(content))
    with open(folder / "records.jsonl", "w", encoding="utf-8") as stream:
        for index in range(images):
            made = record(index, generator, audited=index % 2 == 0)
            stream.write(json.dumps(made, separators=(",", ":")) + "\n")
    with open(folder / THUMBNAILS, "w", encoding="utf-8") as stream:
        for index in range(images):
            # As incompressible as a photograph, and as large; pictures are not decoded here.
            body = b"RIFF\x00\x00\x00\x00WEBP" + generator.bytes(thumbnail_bytes - 12)
            stream.write(thumbnail_line(index, body) + "\n")


def measure(folder: Path, out: Path) -> float:
    """Return the seconds of one report in a fresh process, imports included."""
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", MAKE, str(folder), str(out)], check=True, env=environment)
    return time.perf_counter() - started


def main() -> None:
    """Make the run, time the report, write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--thumbnail-bytes", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="keep the page here")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        make_run(folder, options.images, thumbnail_bytes=options.thumbnail_bytes)
        out = options.keep or Path(temporary) / "report"
        times = [measure(folder, out) for _ in range(options.repeats)]
        size = (out / "report.html").stat().st_size / 1e6
    found = {
        "images": options.images,
        "thumbnail_bytes": options.thumbnail_bytes,
        "seconds": statistics.median(times),
        "seconds_each": times,
        "megabytes": size,
        "limits": {"seconds": SECONDS, "megabytes": MEGABYTES},
        "machine": machine(),
    }
    print(f"{options.images:,} images: {found['seconds']:.2f} s, {size:.2f} MB")
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    if options.images <= 10_000 and (found["seconds"] > SECONDS or size > MEGABYTES):
        sys.exit(1)


if __name__ == "__main__":
    main()
