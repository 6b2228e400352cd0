"""Where a run was made, where it is checked, and what the difference may do to numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from deqcert.checks.problems import Problem
from deqcert.models.devices import usable_device
from deqcert.runners.environment import CHANGED, software

# What decides the last bits of a number, and which labels fall where two are near.
DECISIVE = ("deqcert", "commit", "torch", "machine", "instructions", "device")
# Older runs do not record these: that is unknown, not different.
YOUNGER = ("commit", "instructions")
MARGIN = "reference.margin"


@dataclass(frozen=True)
class Elsewhere:
    """How the place of the replay differs from that of the run.

    Attributes:
        device: Where the replay runs.
        differences: What is known to differ, in words.
        same_code: Whether the run was surely made by the code that is here.
        notes: What a reader should know.
    """

    device: torch.device
    differences: tuple[str, ...]
    same_code: bool
    notes: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether numbers must agree to the bit."""
        return not self.differences

    def explains(self, problems: list[Problem]) -> bool:
        """Whether all that differs is the numeric margin, and other code may have measured it.

        Weights, solver, precision and every count then agree: the record claims what it should. A
        margin that makes any count another one comes with problems of its own, and stays one.
        """
        only_margin = [problem.field for problem in problems] == [MARGIN]
        return only_margin and not (self.same_code and self.exact)


def compare_places(environments: Sequence[Mapping[str, Any]], device: str | None) -> Elsewhere:
    """Compare the places of a run's sessions with this one.

    Args:
        environments: Facts in ``run.json``, one table per place, any of which may be missing.
        device: Device asked for; None takes that of the last session, or the CPU where it is not
            here.

    Raises:
        ConfigurationError: A device that was asked for and is not here.
    """
    where, notes = _device(device, str(environments[-1].get("device")))
    here = {**software(), "device": str(where)}
    differences = tuple(
        f"{name} {environment.get(name)!r} there, {here[name]!r} here"
        for environment in environments
        for name in DECISIVE
        if environment.get(name) != here[name] and (name in environment or name not in YOUNGER)
    )
    if differences:
        notes.append(
            f"the replay runs elsewhere than the run did ({', '.join(differences)}): near ties may "
            "fall otherwise, so a difference of a few draws, or of a deterministic radius's last "
            "digits, need not mean that anybody meddled"
        )
    same_code = all(_same_code(environment, here) for environment in environments)
    return Elsewhere(where, differences, same_code, tuple(notes))


def _same_code(environment: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether a session surely ran the code that is here."""
    if "commit" not in environment or str(environment["commit"]).endswith(CHANGED):
        return False
    return all(environment.get(name) == here[name] for name in ("deqcert", "commit"))


def margin_note(problem: Problem) -> str:
    """Say why a margin alone is no problem."""
    return (
        f"run made by another version, or a version unknown: it recorded a numeric margin of "
        f"{problem.recorded:.3g}, which measures {problem.recomputed:.3g} here; weights, solver, "
        "precision and all counts agree"
    )


def _device(given: str | None, recorded: str) -> tuple[torch.device, list[str]]:
    """Return the device asked for, or that of the run, or the CPU with a note."""
    if given:
        return usable_device(given), []
    try:
        device = torch.device(recorded)
    except RuntimeError:
        device = torch.device("cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        return torch.device("cpu"), ["the run's GPU is not here: replayed on the CPU"]
    return device, []
