"""Labels of the fast cell against those of the plain one, over many draws of trained models.

    python benchmarks/fast_labels.py --out benchmarks/results/fast_labels.json

Test images in turn, fresh noise at the level of the model's training, the model's own solver. In
float32 the fast cell must give the plain one's label wherever either leads by more than the numeric
margin: the script fails if it does not. bfloat16 is another reference classifier; how often its
label differs, and both accuracies, are recorded. CIFAR-10 is read from $DEQCERT_DATA or downloaded.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from console import track
from machine import machine

from deqcert.data import load_data
from deqcert.models import load_model
from deqcert.models.fast_part import FastPart
from deqcert.smoothing.classifier import Labels, ReferenceClassifier

DATA = {"mdeq-digits-s025": "digits", "mdeq-digits-s050": "digits", "mdeq-small-s050": "cifar10"}
BATCH = 400


def classifiers(name: str, sigma: float) -> dict[str, ReferenceClassifier]:
    """Return the plain classifier, the fast one, and the fast one in bfloat16."""
    model = load_model(name)
    spec = model.solver
    made = {
        "plain": ReferenceClassifier(model, spec, sigma=sigma),
        "float32": ReferenceClassifier(model, spec, sigma=sigma),
        "bfloat16": ReferenceClassifier(model, spec, sigma=sigma, precision="bfloat16"),
    }
    parts = [part for part in made["plain"].model.modules() if isinstance(part, FastPart)]
    if not parts:
        sys.exit("there is nothing fast to compare with: pip install deqcert[fast]")
    for part in parts:
        part.active = False
    return made


def measure(name: str, draws: int) -> dict[str, Any]:
    """Return counts over `draws` draws of one model."""
    sigma = float(load_model(name).card["sigma"])  # pyright: ignore[reportOptionalSubscript]
    data = load_data(DATA[name], split="test")
    made = classifiers(name, sigma)
    margin = max(made["plain"].margin, made["float32"].margin)
    counts: dict[str, Any] = dict.fromkeys(
        ("draws", "float32_differs", "float32_differs_outside_margin", "bfloat16_differs"), 0
    )
    correct = dict.fromkeys(made, 0)
    moved = 0.0
    for low in track(range(0, draws, BATCH), name):
        indices = range(low, min(draws, low + BATCH))
        images, truth = _noisy(data, indices, sigma)
        found = {way: classifier.labelled(images)[0] for way, classifier in made.items()}
        counts["draws"] += len(indices)
        outside = np.maximum(found["plain"].lead, found["float32"].lead) > margin
        differs = found["plain"].label != found["float32"].label
        counts["float32_differs"] += int(differs.sum())
        counts["float32_differs_outside_margin"] += int((differs & outside).sum())
        counts["bfloat16_differs"] += int((found["float32"].label != found["bfloat16"].label).sum())
        moved = max(moved, _moved(found["plain"], found["float32"]))
        for way, labels in found.items():
            correct[way] += int((labels.label == truth).sum())
    return {
        "solver": str(made["plain"].spec),
        "sigma": sigma,
        **counts,
        "largest_change_of_lead": moved,
        "margins": {way: classifier.margin for way, classifier in made.items()},
        "accuracy_under_noise": {way: count / draws for way, count in correct.items()},
    }


def _noisy(data: Any, indices: range, sigma: float) -> tuple[torch.Tensor, np.ndarray]:
    examples = [data[i % len(data)] for i in indices]
    images = torch.stack([example.image for example in examples])
    generator = torch.Generator().manual_seed(indices[0])
    noise = sigma * torch.randn(images.shape, generator=generator)
    return images + noise, np.array([example.label for example in examples])


def _moved(a: Labels, b: Labels) -> float:
    # A label that changed moved by both leads: from one class ahead to the other.
    change = np.where(a.label == b.label, np.abs(a.lead - b.lead), a.lead + b.lead)
    return float(change.max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--models", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--draws", type=int, default=100_000)
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "models": {}}
    failed = False
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.models:
        found = results["models"][name] = measure(name, options.draws)
        failed |= found["float32_differs_outside_margin"] > 0
        print(name, json.dumps(found), flush=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
