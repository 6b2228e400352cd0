"""Models for runs: quick, deterministic, undecided enough for every kind of record; or harmful."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deqcert.data import load_data
from deqcert.data.arrays import ArrayDataset
from deqcert.models import EquilibriumModel
from deqcert.results import RunFolder
from deqcert.smoothing import Certifier
from tests.checks.runs import MeansDEQ


class TemplateDEQ(EquilibriumModel):
    """Ten classes by fixed random templates of the equilibrium of a contractive linear cell."""

    def __init__(self) -> None:
        super().__init__(num_classes=10, input_shape=(1, 8, 8), solver="picard:4")
        generator = torch.Generator().manual_seed(0)
        self.mix = torch.nn.Parameter(torch.randn(64, 64, generator=generator) / 24)
        self.head = torch.nn.Parameter(torch.randn(64, 10, generator=generator))

    def inject(self, x: Tensor) -> Tensor:  # (batch, 64)
        return x.flatten(1) - 0.3

    def initial_state(self, injection: Tensor) -> Tensor:
        return torch.zeros_like(injection)

    def cell(self, state: Tensor, injection: Tensor) -> Tensor:
        return torch.tanh(state @ self.mix) + injection

    def classify(self, state: Tensor) -> Tensor:
        return state @ self.head


def small_model() -> TemplateDEQ:
    """Return the model, the same in every process."""
    return TemplateDEQ()


class PoisonedDEQ(MeansDEQ):
    """What a model can do to a run: it fails, hangs or kills at a white image, NaN at a black one.

    Attributes:
        at_white: ``""``, ``raise``, ``hang``, ``crawl`` (0.4 s every time), ``kill`` (always), or
            the path of a file: kill, unless the file is there, and make it.
        pause: Seconds that every injection takes longer.
        most_rows: More at once need more memory than there is; 0: no limit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at_white = ""
        self.most_rows = 0
        self.pause = 0.0

    def inject(self, x: Tensor) -> Tensor:  # (batch, 64)
        time.sleep(self.pause)
        if 0 < self.most_rows < len(x):
            torch.empty(1 << 50, dtype=torch.uint8)
        if float(x.mean()) > 0.8:  # sixteen rows or more: noise hardly moves their mean
            self._poisoned()
        injection = super().inject(x)
        return injection * torch.nan if float(x.mean()) < 0.1 else injection

    def _poisoned(self) -> None:
        if self.at_white == "raise":
            raise ValueError("no model can take this image")
        while self.at_white == "hang":
            time.sleep(0.05)
        if self.at_white == "crawl":
            time.sleep(0.4)
        elif self.at_white and not Path(self.at_white).exists():
            if self.at_white != "kill":
                Path(self.at_white).touch()
            os.kill(os.getpid(), signal.SIGKILL)


BLACK, WHITE = 1, 4


def poisoned_digits() -> ArrayDataset:
    """Return the test digits, the second of them black, the fifth white."""
    digits = load_data("digits")
    assert isinstance(digits, ArrayDataset)
    pixels = digits.pixels.copy()
    pixels[BLACK], pixels[WHITE] = 0, digits.levels
    return dataclasses.replace(digits, name="poisoned-digits", pixels=pixels)


def poisoned_certifier(**settings: Any) -> Certifier:
    """Return a certifier of few draws; `poison` tells its model what to do."""
    defaults = {"sigma": 0.25, "n0": 40, "n": 240, "chains": 64, "audit": 60}
    solvers = {"serial": "picard:1", "warmup": "picard:3"}
    return Certifier(PoisonedDEQ(), **{**defaults, **solvers, **settings})


def poison(certifier: Certifier, **deeds: Any) -> Certifier:
    """Let the certifier's own copy of the model do so from now on; its digest stays the same."""
    for name, value in deeds.items():
        assert hasattr(certifier.classifier.model, name)
        setattr(certifier.classifier.model, name, value)
    return certifier


def records_of(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the records of a run by their index, times left out."""
    return {r["index"]: {**r, "seconds": 0} for r in RunFolder.open(folder).records()}
