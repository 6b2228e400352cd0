"""Checks of finished runs, by anybody: `verify` recomputes and replays."""

from __future__ import annotations

from deqcert.checks.problems import DrawCheck, Problem, Verification
from deqcert.checks.verify import verify

__all__ = ["DrawCheck", "Problem", "Verification", "verify"]
