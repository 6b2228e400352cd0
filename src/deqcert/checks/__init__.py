"""`verify` recomputes and replays finished runs, `attack_run` attacks them; `tune` comes before."""

from __future__ import annotations

from deqcert.checks.attack import AttackSpec, attack_run
from deqcert.checks.attack_result import Attack
from deqcert.checks.problems import DrawCheck, Problem, Verification
from deqcert.checks.tune import tune
from deqcert.checks.tune_result import Choice, Tuning
from deqcert.checks.verify import verify

__all__ = [
    "Attack",
    "AttackSpec",
    "Choice",
    "DrawCheck",
    "Problem",
    "Tuning",
    "Verification",
    "attack_run",
    "tune",
    "verify",
]
