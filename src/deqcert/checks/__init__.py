"""Checks of finished runs, by anybody: `verify` recomputes and replays, `attack_run` attacks."""

from __future__ import annotations

from deqcert.checks.attack import AttackSpec, attack_run
from deqcert.checks.attack_result import Attack
from deqcert.checks.problems import DrawCheck, Problem, Verification
from deqcert.checks.verify import verify

__all__ = [
    "Attack",
    "AttackSpec",
    "DrawCheck",
    "Problem",
    "Verification",
    "attack_run",
    "verify",
]
