"""The model of a run: given, or found among the shipped ones by the digest of its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deqcert.models import EquilibriumModel, available_models, load_model, weights_digest


def find_model(model: EquilibriumModel | str | Path | None, digest: Any) -> EquilibriumModel | None:
    """Return the model that was given, or the shipped one with this digest, or None.

    ``run.json`` names weights, not files: a name can come to mean other weights, a digest cannot.

    Raises:
        UnknownNameError: No model has the name that was given.
        CheckpointError: The file that was given cannot be read.
    """
    if isinstance(model, EquilibriumModel):
        return model
    if model is not None:
        return load_model(model)
    for entry in available_models():
        if not entry.card:
            continue  # an architecture without weights
        found = load_model(entry.name)
        if weights_digest(found) == digest:
            return found
    return None
