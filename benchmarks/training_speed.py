"""Training images per second of a recipe, phase by phase.

    python benchmarks/training_speed.py --out benchmarks/results/training_speed.json

Made-up images of the model's shape: the arithmetic is the same as on photographs, and loading is
measured elsewhere. Each phase runs `--steps` optimiser steps after as many that are not counted,
all from the same fresh weights, on one thread. Seconds are the processor's own, so that a busy
machine does not change them. Numbers of another loop that trains as published, measured beside
this one on the same machine, can be put into the same file with `--beside`: a JSON file with its
`name` and `images_per_second` for `unrolled` and `implicit` steps.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine

from deqcert.data import ArrayDataset
from deqcert.models import build
from deqcert.training.recipes import find_recipe
from deqcert.training.run import TrainingRun

NEVER, ALWAYS = 0, 10**9
PHASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "published, unrolled": ("published", "unrolled", {"pretrain_updates": ALWAYS}),
    "published, implicit": ("published", "implicit", {"pretrain_updates": NEVER}),
    "short-solve, unrolled": ("short-solve", "unrolled", {"pretrain_updates": ALWAYS}),
    "short-solve, short solves": ("short-solve", "implicit", {"pretrain_epochs": NEVER}),
    "short-solve, unrolled, float32": (
        "short-solve",
        "unrolled",
        {"pretrain_updates": ALWAYS, "precision": "float32"},
    ),
    "short-solve, short solves, float32": (
        "short-solve",
        "implicit",
        {"pretrain_epochs": NEVER, "precision": "float32"},
    ),
}
"""Recipe, what the phase stands beside in the published recipe, and changes of settings."""


def made_up(count: int, shape: tuple[int, int, int], classes: int) -> ArrayDataset:
    """Random pixels and labels."""
    generator = np.random.default_rng(0)
    return ArrayDataset(
        name="made-up",
        split="train",
        pixels=generator.integers(256, size=(count, *shape), dtype=np.uint8),
        labels=generator.integers(classes, size=count),
        levels=255,
        class_names=tuple(str(k) for k in range(classes)),
        licence="none",
    )


def images_per_second(model: str, phase: str, *, steps: int, batch: int) -> dict[str, Any]:
    """Return the rate of one phase, from the median time of a step."""
    name, beside, changes = PHASES[phase]
    recipe = find_recipe(name, model=model)
    config = recipe.config(
        sigma=0.5, **changes, epochs=2, batch_size=batch, validation_share=0.0, warmup_steps=0
    )
    torch.manual_seed(0)
    fresh = build(model, **recipe.model)
    data = made_up(steps * batch, fresh.input_shape, fresh.num_classes)
    run = TrainingRun(fresh, data, config)
    times = [time.process_time()]
    for epoch in range(2):
        run.epoch(epoch, {}, lambda loss: times.append(time.process_time()))
    seconds = statistics.median(b - a for a, b in itertools.pairwise(times[steps:]))
    return {
        "recipe": recipe.name,
        "beside": beside,
        "precision": config.precision,
        "batch": batch,
        "steps": steps,
        "images_per_second": batch / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--model", default="mdeq-small")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=96, help="images per step, in every phase")
    parser.add_argument("--beside", type=Path, help="JSON file with numbers of another loop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"machine": machine(), "model": options.model, "phases": {}}
    for phase in PHASES:
        row = images_per_second(options.model, phase, steps=options.steps, batch=options.batch)
        results["phases"][phase] = row
        print(f"{phase:36} {row['images_per_second']:8.1f} images/s")
    if options.beside is not None:
        results["beside"] = json.loads(options.beside.read_text(encoding="utf-8"))
        _compare(results)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _compare(results: dict[str, Any]) -> None:
    """Add our rates as multiples of the other loop's for the same part of training."""
    other = results["beside"]
    results["ratios"] = {}
    for phase, row in results["phases"].items():
        ratio = row["images_per_second"] / other["images_per_second"][row["beside"]]
        results["ratios"][phase] = ratio
        print(f"{phase:36} {ratio:8.2f} times {other['name']}, {row['beside']}")


if __name__ == "__main__":
    main()
