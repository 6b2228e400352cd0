"""Accuracy under noise by number of Picard steps, for trained models: table and plot.

    python benchmarks/accuracy_by_steps.py mdeq-digits-s050 --out benchmarks/results/by_steps

Every model is evaluated at the noise level, and on the test images, that its card names. Writes
OUT.json, OUT.md and (with matplotlib) OUT.svg.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from machine import machine

from deqcert.data import load_data
from deqcert.errors import CheckpointError
from deqcert.models import load_model
from deqcert.training import Evaluation, evaluate

STEPS = (1, 2, 3, 5, 8, 12, 30)


def measure(name: str, *, copies: int, every: int, folder: Path | None) -> Evaluation:
    """Evaluate one model on every so many-th test image of its data set."""
    model = load_model(name)
    if not model.card:
        raise CheckpointError(f"{name} has no card that names its data and noise level")
    data = load_data(model.card["data"]["name"], split="test", folder=folder)
    rows = range(0, len(data), every)
    # A seed that no card was made with.
    return evaluate(
        model, data, sigma=model.card["sigma"], indices=rows, copies=copies, seed=7, steps=STEPS
    )


def table(found: dict[str, Evaluation]) -> str:
    """Return the accuracies as a Markdown table, in percent."""
    head = ["model", "sigma", "images", *(f"{k} steps" for k in STEPS), "smoothed", "converged"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, result in found.items():
        shares = [f"{100 * result.accuracy_by_steps[k]:.1f}" for k in STEPS]
        ends = [f"{100 * result.smoothed_accuracy:.1f}", f"{100 * result.converged:.0f}"]
        cells = [name, f"{result.sigma:g}", f"{result.images} x {result.copies}", *shares, *ends]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(found: dict[str, Evaluation], path: Path) -> None:
    """Draw accuracy against steps."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, result in found.items():
        shares = [100 * result.accuracy_by_steps[k] for k in STEPS]
        axes.plot(STEPS, shares, marker="o", label=f"{name}, sigma {result.sigma:g}")
    axes.set_xscale("log")
    axes.set_xticks(STEPS, [str(k) for k in STEPS])
    axes.minorticks_off()
    axes.set_xlabel("Picard steps from the cold start")
    axes.set_ylabel("accuracy of single noisy copies, %")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="zoo names or checkpoint files, with cards")
    parser.add_argument("--out", type=Path, required=True, help="files to write, without suffix")
    parser.add_argument("--copies", type=int, default=4, help="noisy copies of each image")
    parser.add_argument("--every", type=int, default=1, help="take every so many-th test image")
    parser.add_argument("--data-dir", type=Path, help="folder with the data sets' original files")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {
        name: measure(name, copies=options.copies, every=options.every, folder=options.data_dir)
        for name in options.models
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {"machine": machine(), "copies": options.copies}
    values["models"] = {name: result.to_dict() for name, result in found.items()}
    options.out.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(table(found))
    print(table(found), end="")
    if importlib.util.find_spec("matplotlib"):
        plot(found, options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
