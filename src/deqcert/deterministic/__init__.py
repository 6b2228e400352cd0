"""Deterministic certificates of monotone DEQs: no sampling, no failure probability."""

from __future__ import annotations

from deqcert.deterministic.interval import IntervalCertifier
from deqcert.deterministic.lipschitz import LipschitzCertifier
from deqcert.deterministic.record import DeterministicCertificate

__all__ = ["DeterministicCertificate", "IntervalCertifier", "LipschitzCertifier"]
