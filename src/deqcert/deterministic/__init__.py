"""Deterministic certificates of monotone DEQs: no sampling, no failure probability."""

from __future__ import annotations

from deqcert.certificate import DeterministicCertificate
from deqcert.deterministic.interval import IntervalCertifier, IntervalSettings
from deqcert.deterministic.lipschitz import LipschitzCertifier, LipschitzSettings

__all__ = [
    "DeterministicCertificate",
    "IntervalCertifier",
    "IntervalSettings",
    "LipschitzCertifier",
    "LipschitzSettings",
]
