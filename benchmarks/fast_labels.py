"""Labels of the fast cell against those of the plain one, over many draws of trained models.

    python benchmarks/fast_labels.py --out benchmarks/results/fast_labels
    python benchmarks/fast_labels.py --device cuda --out benchmarks/results/fast_labels_gpu

Test images in turn, fresh noise at the level of the model's training, the model's own solver. In
float32 the fast cell must give the plain one's label wherever either leads by more than the numeric
margin: the script fails if it does not. bfloat16 is another reference classifier; how often its
label differs, and both accuracies, are recorded. Data sets are read from $DEQCERT_DATA or
downloaded. Slices of draws are kept as they come (OUT.json), so that it goes on where it stopped;
OUT.md is the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from console import markdown, track
from ledger import Ledger

from deqcert.data import Dataset, load_data
from deqcert.models import EquilibriumModel, available_models, load_model
from deqcert.models.fast_part import FastPart
from deqcert.smoothing.classifier import Labels, ReferenceClassifier

BATCH = 400
SLICE = 10_000


def trained() -> list[str]:
    """Return the MDEQs that ship: models with a fast cell."""
    shipped = {entry.name: entry for entry in available_models() if entry.card}
    return [name for name in shipped if name.startswith("mdeq-")]


def classifiers(
    model: EquilibriumModel, sigma: float, device: str
) -> dict[str, ReferenceClassifier]:
    """Return the plain classifier, the fast one, and the fast one in bfloat16."""
    precisions = {"plain": "float32", "float32": "float32", "bfloat16": "bfloat16"}
    made = {
        way: ReferenceClassifier(model, model.solver, sigma=sigma, device=device, precision=kind)
        for way, kind in precisions.items()
    }
    parts = [part for part in made["plain"].model.modules() if isinstance(part, FastPart)]
    if not parts:
        sys.exit("there is nothing fast to compare with: it needs numba, or Triton on a GPU")
    for part in parts:
        part.active = False
    return made


class Subject:
    """One trained model, its three classifiers and its data."""

    def __init__(self, name: str, data: Dataset, device: str) -> None:
        model = load_model(name)
        self.name = name
        self.sigma = float(model.card["sigma"])  # pyright: ignore[reportOptionalSubscript]
        self.data = data
        self.made = classifiers(model, self.sigma, device)
        self.margin = max(self.made["plain"].margin, self.made["float32"].margin)

    @property
    def facts(self) -> dict[str, Any]:
        """What the counts are about."""
        return {
            "solver": str(self.made["plain"].spec),
            "sigma": self.sigma,
            "margins": {way: classifier.margin for way, classifier in self.made.items()},
        }

    def count(self, draws: range) -> dict[str, Any]:
        """Return counts over some draws."""
        counts: dict[str, Any] = dict.fromkeys(
            ("float32_differs", "float32_differs_outside_margin", "bfloat16_differs"), 0
        )
        correct = dict.fromkeys(self.made, 0)
        moved = 0.0
        for low in range(draws.start, draws.stop, BATCH):
            images, truth = _noisy(self.data, range(low, min(draws.stop, low + BATCH)), self.sigma)
            found = {way: classifier.labelled(images)[0] for way, classifier in self.made.items()}
            outside = np.maximum(found["plain"].lead, found["float32"].lead) > self.margin
            differs = found["plain"].label != found["float32"].label
            other = found["float32"].label != found["bfloat16"].label
            counts["float32_differs"] += int(differs.sum())
            counts["float32_differs_outside_margin"] += int((differs & outside).sum())
            counts["bfloat16_differs"] += int(other.sum())
            moved = max(moved, _moved(found["plain"], found["float32"]))
            for way, labels in found.items():
                correct[way] += int((labels.label == truth).sum())
        return {"draws": len(draws), **counts, "correct": correct, "largest_change_of_lead": moved}


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


def totals(facts: Mapping[str, Any], slices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums of all slices of one model beside its facts."""
    draws = sum(one["draws"] for one in slices)
    summed = ("float32_differs", "float32_differs_outside_margin", "bfloat16_differs")
    right = {way: sum(one["correct"][way] for one in slices) / draws for way in facts["margins"]}
    return {
        **facts,
        "draws": draws,
        **{key: sum(one[key] for one in slices) for key in summed},
        "largest_change_of_lead": max(one["largest_change_of_lead"] for one in slices),
        "accuracy_under_noise": right,
    }


def table(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the totals of all models as a Markdown table."""
    head = ["model", "solver", "draws", "float32 differs", "of them outside the margin"]
    head += ["largest change of a lead", "margin", "bfloat16 differs", "right: plain, bfloat16"]
    body = []
    for name, row in summary.items():
        right = row["accuracy_under_noise"]
        body.append(
            [
                name,
                row["solver"],
                f"{row['draws']:,}",
                str(row["float32_differs"]),
                str(row["float32_differs_outside_margin"]),
                f"{row['largest_change_of_lead']:.1e}",
                f"{max(row['margins']['plain'], row['margins']['float32']):.1e}",
                f"{100 * row['bfloat16_differs'] / row['draws']:.2f} %",
                f"{100 * right['plain']:.2f}, {100 * right['bfloat16']:.2f} %",
            ]
        )
    return markdown(head, body)


def main() -> int:
    """Run it; return 1 if a label differs where it must not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="OUT.json and OUT.md")
    parser.add_argument("--models", nargs="+", default=trained(), help="names in the zoo")
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data-dir", type=Path, help="folder of the original data files")
    parser.add_argument("--again", action="store_true", help="measure everything once more")
    options = parser.parse_args()
    out, settings = options.out.with_suffix(".json"), {"draws": options.draws}
    ledger = Ledger(out, settings, again=options.again, device=options.device)
    for name in options.models:
        card = load_model(name).card or {}
        data = load_data(card["data"]["name"], split="test", folder=options.data_dir)
        subject = Subject(name, data, options.device)
        known = f"{name} {subject.made['plain'].digest[:12]}"
        facts = ledger.measure(f"{known}|model", lambda s=subject: s.facts)
        slices = []
        for low in track(range(0, options.draws, SLICE), name):
            part = range(low, min(options.draws, low + SLICE))
            work = lambda s=subject, p=part: s.count(p)  # noqa: E731
            slices.append(ledger.measure(f"{known}|{low}", work))
        summary = {**ledger.content.get("summary", {}), name: totals(facts, slices)}
        ledger.note("summary", summary)
        options.out.with_suffix(".md").write_text(table(summary), encoding="utf-8")
    found = ledger.content["summary"]
    return int(any(row["float32_differs_outside_margin"] for row in found.values()))


if __name__ == "__main__":
    sys.exit(main())
