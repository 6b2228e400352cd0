"""Accuracy of a row's classifier without noise, on the whole split; kept in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deqcert.data import Dataset
from deqcert.models import EquilibriumModel, inference_copy, solve_rows, weights_digest
from deqcert.results.files import write_atomically
from experiments.settings import Row

ROWS = 400


def clean_accuracy(row: Row, model: EquilibriumModel, data: Dataset, file: Path) -> float:
    """Return the share of correct labels, each image solved as the row's classifier solves it.

    Args:
        row: The row; of its options `reference` or `solver` counts, else the model's own solver.
        model: Its model.
        data: All images of this are classified.
        file: Where the number is kept; read again if it is about the same weights, solver and data.
    """
    solver = str(row.options.get("reference") or row.options.get("solver") or model.solver)
    facts: dict[str, Any] = {
        "weights_digest": weights_digest(model),
        "solver": solver,
        "data_digest": data.digest,
        "images": len(data),
    }
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if {key: kept.get(key) for key in facts} == facts:
            return float(kept["accuracy"])
    folded, correct = inference_copy(model), 0
    for low in range(0, len(data), ROWS):
        images, labels = data.batch(range(low, min(low + ROWS, len(data))))
        logits, _ = solve_rows(folded, images, solver)
        correct += int((logits.argmax(dim=1) == labels).sum())
    accuracy = correct / len(data)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps({**facts, "accuracy": accuracy}, indent=1) + "\n")
    return accuracy
