"""The record of a deterministic certificate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deqcert.certificate import Reference
from deqcert.errors import DeqcertError

NORMS = ("L2", "Linf")


@dataclass(frozen=True, kw_only=True)
class DeterministicCertificate:
    """No perturbation smaller than `radius` in `norm` changes the class at the exact equilibrium.

    There is no noise and no failure probability. Radii of different norms are never to be mixed.

    Attributes:
        prediction: Class at the exact equilibrium of the image, or None where it is not proved.
        radius: Certified radius in pixel units, >= 0, rounded toward zero; 0.0 without a class.
        norm: ``L2`` or ``Linf``.
        method: ``lipschitz`` or ``interval``.
        reference: The classifier: these weights, read as real numbers, at their exact equilibrium.
        domain: ``all`` perturbed images, or ``pixels``: those with pixels in [0, 1].
        index: Image index.
        distance: Proved L2 distance of the state looked at to the exact equilibrium.
        facts: What the proof rests on: m, norms, slack.
        cell_evaluations: Cell evaluations spent, those of the doubled system counted twice.
        seconds: Wall-clock seconds, the image's share of its batch.
        guarantee: Always ``deterministic``.
    """

    prediction: int | None
    radius: float
    norm: str
    method: str
    reference: Reference
    domain: str
    index: int
    distance: float
    facts: Mapping[str, Any]
    cell_evaluations: int
    seconds: float
    guarantee: str = "deterministic"

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise DeqcertError(f"norm must be one of {NORMS}, but got {self.norm!r}")
        if self.guarantee != "deterministic":
            raise DeqcertError(f"guarantee must be 'deterministic', but got {self.guarantee!r}")
        if not (math.isfinite(self.radius) and self.radius >= 0):
            raise DeqcertError(f"radius must be finite and >= 0, but got {self.radius}")
        if self.prediction is None and self.radius != 0.0:
            raise DeqcertError("without a class the radius is 0.0")

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON types, full precision."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> DeterministicCertificate:
        """Rebuild a certificate from `to_json`; keys that are not fields are ignored.

        Raises:
            DeqcertError: A field is missing or does not fit.
        """
        values = {f.name: record[f.name] for f in dataclasses.fields(cls) if f.name in record}
        missing = [f.name for f in dataclasses.fields(cls) if f.name not in record]
        if missing:
            raise DeqcertError(f"not a deterministic certificate: missing {', '.join(missing)}")
        try:
            values["reference"] = Reference(**values["reference"])
        except TypeError as error:
            raise DeqcertError(f"not a deterministic certificate: {error}") from error
        return cls(**values)
