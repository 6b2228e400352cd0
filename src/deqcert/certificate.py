"""Certificates: frozen records of one claim and of everything the claim depends on.

No torch here: records are read by reports, scripts and other people's tools.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from deqcert.errors import DeqcertError

GUARANTEES = ("standard", "audited", "proved", "none")
DETERMINISTIC = "deterministic"
NORMS = {"lipschitz": "L2", "interval": "Linf"}
"""Norm of the radius, by deterministic method; all other methods certify L2 radii."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """How many serialized labels were checked against cold reference solves, and the outcome.

    Attributes:
        population: Serialized draws labelled with the predicted class, N_A.
        drawn: Draws of them re-solved cold, K, chosen uniformly without replacement.
        disagreements: Audited draws whose reference label differs (or is a near tie), m.
        upper_bound: Bound on all disagreements among the population (THEORY Theorem A), or None
            where the rule bounds count and disagreements jointly (Theorem A').
    """

    population: int
    drawn: int
    disagreements: int
    upper_bound: int | None


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The base classifier a certificate is about (THEORY 1): what the user must deploy.

    Attributes:
        weights_digest: SHA-256 over names, shapes, types and bytes of the (unfolded) weights.
        solver: Solver string of the cold solve, for example ``"anderson:30"``.
        precision: Number format of the solve, for example ``"float32"``.
        margin: Logit lead below which a draw is not counted for the class; measured, not proved
            (THEORY 1.1).
    """

    weights_digest: str
    solver: str
    precision: str
    margin: float


class _Claim:
    """What records of both kinds share."""

    prediction: int | None
    radius: float

    @property
    def abstained(self) -> bool:
        """True where no class is certified."""
        return self.prediction is None

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON types, full precision."""
        return dataclasses.asdict(cast(Any, self))

    def _check_radius(self) -> None:
        if not (math.isfinite(self.radius) and self.radius >= 0):
            raise DeqcertError(f"radius must be finite and >= 0, but got {self.radius}")
        if self.prediction is None and self.radius != 0.0:
            raise DeqcertError("an abstention has radius 0.0")

    @classmethod
    def _values(cls, record: Mapping[str, Any], otherwise: str) -> dict[str, Any]:
        """Return the values of all fields; `otherwise` is what a record without one is called."""
        names = [field.name for field in dataclasses.fields(cast(Any, cls))]
        missing = [name for name in names if name not in record]
        if missing:
            raise DeqcertError(f"{otherwise}: missing {', '.join(missing)}")
        return {name: record[name] for name in names}


@dataclass(frozen=True, kw_only=True)
class Certificate(_Claim):
    """One certificate: no perturbation of L2 norm below `radius` changes the smoothed prediction.

    Radii are in pixel units (pixels in [0, 1]) and never rounded up. With probability at least
    ``1 - alpha`` over the sampling the statement holds, if `guarantee` is not ``"none"``.

    Attributes:
        prediction: Predicted class, or None for an abstention.
        radius: Certified L2 radius, >= 0; 0.0 for an abstention.
        p_lower: Lower confidence bound of the class probability under noise, in [0, 1].
        guarantee: ``standard``, ``audited``, ``proved`` or ``none``.
        method: ``standard``, ``srs``, ``proved`` or ``srs-paper``.
        sigma: Noise standard deviation in pixel units.
        alpha: Failure probability of this one certificate.
        alpha_count: Share of alpha spent on the count; None under a joint rule (Theorem A').
        alpha_audit: Share of alpha spent on the audit; None under a joint rule.
        n0: Selection draws.
        n: Estimation draws.
        counts0: Reference labels among the selection draws, per class.
        counts: Labels among the estimation draws, per class (serialized labels for ``srs``).
        count: Draws credited to the class.
        audit: The audit, or None where there is none.
        reference: The base classifier.
        serial: Solver string of the serialized solves, or None.
        warmup: Solver string of the first batch, or None.
        start: ``previous``, ``clean`` or ``mean``, or None without serialized solves.
        chains: Rows followed side by side through serialized batches, or None.
        noise: Name of the noise stream.
        seed: Seed of the noise stream.
        index: Image index in the noise stream.
        plan: What was decided before the estimation draws, and why.
        steps: Quantiles of steps per estimation solve, by name (``"0.5"``, ``"1.0"`` ...).
        residual: Quantiles of the final relative residual per estimation solve.
        unconverged: Estimation solves that failed, or that had a tolerance and missed it.
        cell_evaluations: Cell evaluations spent on this certificate, audits and pilot included;
            looks at logits are not counted.
        seconds: Wall-clock seconds spent.
    """

    prediction: int | None
    radius: float
    p_lower: float
    guarantee: str
    method: str
    sigma: float
    alpha: float
    alpha_count: float | None
    alpha_audit: float | None
    n0: int
    n: int
    counts0: tuple[int, ...]
    counts: tuple[int, ...]
    count: int
    audit: Audit | None
    reference: Reference
    serial: str | None
    warmup: str | None
    start: str | None
    chains: int | None
    noise: str
    seed: int
    index: int
    plan: Mapping[str, Any]
    steps: Mapping[str, float]
    residual: Mapping[str, float | None]
    unconverged: int
    cell_evaluations: int
    seconds: float

    def __post_init__(self) -> None:
        if self.guarantee not in GUARANTEES:
            raise DeqcertError(f"guarantee must be one of {GUARANTEES}, but got {self.guarantee!r}")
        self._check_radius()

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Certificate:
        """Rebuild a certificate from `to_json`; keys that are not fields are ignored.

        Raises:
            DeqcertError: A field is missing or does not fit.
        """
        values = cls._values(record, "not a certificate record")
        try:
            values["counts0"] = tuple(values["counts0"])
            values["counts"] = tuple(values["counts"])
            values["reference"] = Reference(**values["reference"])
            if values["audit"] is not None:
                values["audit"] = Audit(**values["audit"])
        except TypeError as error:
            raise DeqcertError(f"not a certificate record: {error}") from error
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class DeterministicCertificate(_Claim):
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
    guarantee: str = DETERMINISTIC

    def __post_init__(self) -> None:
        if self.method not in NORMS:
            known = ", ".join(NORMS)
            raise DeqcertError(f"method must be one of {known}, but got {self.method!r}")
        if self.norm != NORMS[self.method]:
            raise DeqcertError(
                f"the norm of {self.method} is {NORMS[self.method]}, but got {self.norm!r}"
            )
        if self.guarantee != DETERMINISTIC:
            raise DeqcertError(f"guarantee must be {DETERMINISTIC!r}, but got {self.guarantee!r}")
        self._check_radius()

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> DeterministicCertificate:
        """Rebuild a certificate from `to_json`; keys that are not fields are ignored.

        Raises:
            DeqcertError: A field is missing or does not fit.
        """
        values = cls._values(record, "not a deterministic certificate")
        try:
            values["reference"] = Reference(**values["reference"])
        except TypeError as error:
            raise DeqcertError(f"not a deterministic certificate: {error}") from error
        return cls(**values)


AnyCertificate = Certificate | DeterministicCertificate


def read_certificate(record: Mapping[str, Any]) -> AnyCertificate:
    """Rebuild the certificate of either kind from its `to_json`.

    Raises:
        DeqcertError: A field is missing or does not fit.
    """
    certain = isinstance(record, Mapping) and record.get("guarantee") == DETERMINISTIC
    return (DeterministicCertificate if certain else Certificate).from_json(record)
