"""Compares our MDEQs with logits and states of another implementation, from the same weights.

    python benchmarks/parity.py --reference small.npz large.npz --out benchmarks/results/parity.json

A reference is an NPZ file somebody wrote while running the other implementation, one per
architecture (docs/parity.md tells how ours were made):

    architecture                        its name here, such as mdeq-small
    images                              (batch, C, H, W), float32 in [0, 1]
    weights/NAME                        the state dict, public names
    logits/DTYPE/SOLVER/STEPS           (batch, classes), DTYPE float32 or float64
    state/DTYPE/SOLVER/STEPS            (batch, numbers), resolutions one after the other

STEPS is the iterate, not the cost: z_k, tolerance 0. Weights go through `import_checkpoint`, so
the comparison covers the names too. A difference is ||ours - theirs|| / ||theirs||, the largest
over the images. Beside ours in float32, as trained and folded as certified, stands how far the
other implementation in float32 is from itself in float64: what rounding alone does there.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from torch import Tensor

from deqcert.models import EquilibriumModel, ImportReport, import_checkpoint, inference_copy
from deqcert.solvers import SolverSpec, solve


def imported(reference: Any) -> tuple[EquilibriumModel, ImportReport]:
    """Write the weights as a public training checkpoint and import that."""
    weights = {
        f"module.{name.removeprefix('weights/')}": torch.from_numpy(reference[name])
        for name in reference.files
        if name.startswith("weights/")
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pth.tar"
        torch.save({"state_dict": weights, "epoch": 1}, path)
        return import_checkpoint(path, architecture=str(reference["architecture"]))


@torch.no_grad()
def computed(model: EquilibriumModel, x: Tensor, solver: str, steps: int) -> tuple[Tensor, Tensor]:
    """Return logits and flat state of the k-th iterate."""
    # Broyden must not restart: the public code keeps every update.
    spec = SolverSpec(solver, steps, memory=steps if solver == "broyden" else 0)
    injection = model.inject(x)
    solution = solve(
        model.cell, model.initial_state(injection), injection, spec=spec, sizes=(len(x),)
    )
    flat = torch.cat([part.flatten(1) for part in solution.state], dim=1)
    return model.classify(solution.state), flat


def difference(ours: Tensor, theirs: np.ndarray | Tensor) -> float:
    """Return ||ours - theirs|| / ||theirs||, the largest over the batch."""
    a, b = ours.double(), torch.as_tensor(theirs).double()
    return float(((a - b).norm(dim=1) / b.norm(dim=1)).max())


def compare(path: Path) -> dict[str, Any]:
    """Return all differences from one reference."""
    reference = np.load(path)
    model, report = imported(reference)
    x = torch.from_numpy(reference["images"])
    forms = {
        "float64": copy.deepcopy(model).double(),
        "float32": model,
        "float32 folded": inference_copy(model),
    }
    rows = []
    for name in reference.files:
        kind, _, rest = name.partition("/float64/")
        if kind != "logits" or not rest:
            continue
        solver, steps = rest.split("/")
        row: dict[str, Any] = {"solver": solver, "steps": int(steps)}
        row["their rounding"] = difference(
            torch.from_numpy(reference[f"logits/float32/{rest}"]), reference[name]
        )
        for form, ours in forms.items():
            dtype = form.split()[0]
            logits, state = computed(ours, x.to(getattr(torch, dtype)), solver, int(steps))
            row[f"logits {form}"] = difference(logits, reference[f"logits/{dtype}/{rest}"])
            if dtype == "float64":
                row[f"state {form}"] = difference(state, reference[f"state/{dtype}/{rest}"])
        rows.append(row)
        print(report.architecture, json.dumps(row), flush=True)
    return {
        "architecture": report.architecture,
        "images": len(x),
        "parameters": report.parameters,
        "tensors": report.tensors,
        "ignored": report.ignored,
        "weights_digest": report.weights_digest,
        "largest": {
            key: max(row[key] for row in rows) for key in rows[0] if key not in ("solver", "steps")
        },
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reference", type=Path, nargs="+", required=True)
    parser.add_argument("--against", default="", help="Repository and commit of the reference.")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    results = [compare(path) for path in arguments.reference]
    content = {"against": arguments.against, "machine": machine(), "results": results}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
