"""`standard` against `srs` (and `srs-paper`) on the shipped digits model, image by image.

    python benchmarks/standard_against_srs.py --out benchmarks/results/digits-s050

The methods take turns on every image, so that a slow minute of the machine meets all of them; the
run folders are ordinary ones, resumable, and `deqcert report` reads them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from machine import machine

import deqcert as dc

METHODS = ("standard", "srs", "srs-paper")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the run folders")
    parser.add_argument("--model", default="mdeq-digits-s050")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--skip", type=int, default=4, help="every skip-th test image")
    parser.add_argument("--reference", help="cold solver; default: the model's own")
    parser.add_argument("--serial", help="warm solver; default: the model's own")
    options = parser.parse_args()
    model, data = dc.load_model(options.model), dc.load_data("digits", split="test")
    certifiers = {
        method: dc.Certifier(
            model,
            sigma=options.sigma,
            method=method,
            reference=options.reference,
            serial=options.serial,
        )
        for method in METHODS
    }
    images = len(range(0, len(data), options.skip))
    for count in range(1, images + 1):
        for method, certifier in certifiers.items():
            dc.certify_dataset(
                certifier,
                data,
                out=options.out / method,
                skip=options.skip,
                limit=count,
                seed=0,
            )
        print(f"{count} of {images} images", flush=True)
    (options.out / "machine.json").write_text(json.dumps(machine(), indent=2) + "\n")
    print(dc.report([options.out / m for m in METHODS], out=options.out / "report"))


if __name__ == "__main__":
    main()
