"""Making records again from their noise keys: whole, to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from deqcert.checks.problems import Place, Problem
from deqcert.checks.read import Record
from deqcert.models import EquilibriumModel
from deqcert.results.configuration import configuration_differences
from deqcert.smoothing import Certifier
from deqcert.smoothing.sampling import Progress, no_progress
from deqcert.smoothing.settings import Settings

WHY = {
    "counts0": "these are not the selection labels of this classifier under this noise",
    "counts": "these are not the labels of this classifier under this noise",
    "count": "other draws are credited to the class than the labels and the audit leave",
    "audit": "the audit of these labels comes out otherwise",
    "p_lower": "the bound does not follow from the draws",
    "radius": "the radius does not follow from the draws",
    "prediction": "the draws choose another class",
    "plan": "the pilot's draws lead to another plan",
    "reference": "the classifier here is another one, or measures another margin (THEORY 1.1): "
    "other weights, code, libraries or machine",
    "cell_evaluations": "the record states another cost than it has",
    "steps": "the record states another cost than it has",
    "residual": "the solves end otherwise",
    "unconverged": "other solves failed, or missed their tolerance",
}
_OTHER = "the record is not what its noise keys and the classifier give"


def certifier_of(
    configuration: Mapping[str, Any],
    model: EquilibriumModel,
    *,
    device: str | None,
    batch_size: int | None,
) -> Certifier:
    """Return the certifier that a run's configuration describes.

    Raises:
        DeqcertError: The configuration describes none.
    """
    names = Settings.__dataclass_fields__
    settings = {name: configuration[name] for name in names}
    return Certifier(
        model,
        **settings,
        noise_stream=configuration["noise"],
        device=device,
        batch_size=batch_size,
    )


def replay(
    certifier: Certifier,
    image: Tensor,  # (C, H, W)
    place: Place,
    record: Record,
    *,
    progress: Progress = no_progress,
) -> Iterator[Problem]:
    """Certify the image again from the record's noise keys; yield every field that differs.

    All fields take part but the seconds: labels' counts, audit, plan, bound, radius, prediction,
    costs and solver statistics.
    """
    found = certifier.certify(image, seed=record["seed"], index=record["index"], progress=progress)
    again = json.loads(json.dumps(found.to_json()))
    recorded = {name: record.get(name) for name in again}
    recorded["seconds"] = again["seconds"]
    for field, old, new in configuration_differences(recorded, again):
        why = WHY.get(field.partition(".")[0], _OTHER)
        yield place.problem(field, old, new, f"replayed: {why}")
