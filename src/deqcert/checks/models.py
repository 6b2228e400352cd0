"""The model of a run: given, or found among the shipped ones by the digest of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deqcert.models import EquilibriumModel, available_models, load_model, weights_digest
from deqcert.models.families import architecture_of
from deqcert.results.configuration import configuration_differences


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


def model_differences(
    configuration: Mapping[str, Any], model: EquilibriumModel
) -> list[tuple[str, Any, Any]]:
    """Return ``(setting, value in the run, value of the model)`` where a run is of another model.

    Weights do not tell everything: the same ones, standardised otherwise, are another classifier.
    Of runs from before the architecture was recorded the weights alone are compared.
    """
    own = {"weights_digest": weights_digest(model), "architecture": architecture_of(model)}
    stored = {key: configuration.get(key) for key in own}
    if stored["architecture"] is None:
        del stored["architecture"], own["architecture"]
    return configuration_differences(stored, own)
