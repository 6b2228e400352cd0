"""Real small runs on digits, and a way to tamper with them that a careful forger might choose."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deqcert.checks.bounds import bound_of
from deqcert.data import load_data
from deqcert.deterministic import IntervalCertifier, LipschitzCertifier
from deqcert.models import EquilibriumModel, MonDEQ, MonDEQConfig
from deqcert.results.cohen import HEADER, cohen_row
from deqcert.runners import certify_dataset
from deqcert.smoothing import Certifier
from deqcert.stats import certified_radius

SKIP, SEED = 40, 11
STEPS = 6
"""Of an interval run: few enough that one more moves the boxes."""


class MeansDEQ(EquilibriumModel):
    """Digits by the nearest class mean, read off the equilibrium of a contractive cell.

    Quick, right for most digits, and slow enough to settle that warm and cold labels differ.
    """

    def __init__(self) -> None:
        super().__init__(num_classes=10, input_shape=(1, 8, 8), solver="picard:6")
        data = load_data("digits", split="train")
        images, labels = data.batch(np.arange(len(data)))
        rows = images.flatten(1)
        means = torch.stack([rows[labels == label].mean(0) for label in range(10)])
        generator = torch.Generator().manual_seed(0)
        self.mix = torch.nn.Parameter(torch.randn(64, 64, generator=generator) / 40)
        self.means = torch.nn.Parameter(means)

    def inject(self, x: Tensor) -> Tensor:  # (batch, 64)
        return x.flatten(1)

    def initial_state(self, injection: Tensor) -> Tensor:
        return torch.zeros_like(injection)

    def cell(self, state: Tensor, injection: Tensor) -> Tensor:
        return 0.5 * torch.tanh(state @ self.mix) + 0.5 * state + 0.5 * injection

    def classify(self, state: Tensor) -> Tensor:
        return 8.0 * (state @ self.means.T - self.means.square().sum(1) / 2)


METHODS: dict[str, dict[str, Any]] = {
    "standard": {"method": "standard"},
    # Many steps make serialized and reference labels differ now and then.
    "srs": {"method": "srs", "audit": 120},
    "srs-paper": {"method": "srs-paper", "audit": 60},
}


def make_run(folder: Path, method: str) -> Path:
    """Certify ten digits by one method."""
    certifier = Certifier(
        MeansDEQ(), sigma=0.25, n0=40, n=240, chains=24, serial="picard:1", **METHODS[method]
    )
    certify_dataset(certifier, load_data("digits"), out=folder, skip=SKIP, seed=SEED)
    return folder


@dataclass
class Forgery:
    """The content of a run folder, to be changed at will.

    Attributes:
        path: The folder.
        content: Content of ``run.json``.
        records: Records in order.
        at: Position of the record to tamper with.
    """

    path: Path
    content: dict[str, Any]
    records: list[dict[str, Any]]
    at: int = 0

    @classmethod
    def of(cls, original: Path, copy: Path) -> Forgery:
        """Copy a run; the record to tamper with is one that a forger gains from."""
        shutil.copytree(original, copy)
        content = json.loads((copy / "run.json").read_text())
        records = [json.loads(line) for line in (copy / "records.jsonl").read_text().splitlines()]
        return cls(copy, content, records, _subject(records))

    @property
    def record(self) -> dict[str, Any]:
        """The record to tamper with."""
        return self.records[self.at]

    @property
    def configuration(self) -> dict[str, Any]:
        """The run's configuration."""
        return self.content["configuration"]

    def refit(self) -> None:
        """Make bound, radius and verdict of the record follow from its counts: all adds up."""
        record = self.record
        record["p_lower"] = bound_of(record).p_lower
        record["radius"] = certified_radius(record["p_lower"], record["sigma"])
        counts = record["counts0"]
        record["prediction"] = counts.index(max(counts)) if record["radius"] > 0 else None
        record["correct"] = record["prediction"] == record["label"]
        record["status"] = "abstained" if record["prediction"] is None else "certified"

    def save(self, *, table: bool = True) -> None:
        """Write the folder, ``cohen.tsv`` to match unless told otherwise."""
        (self.path / "run.json").write_text(json.dumps(self.content))
        lines = [json.dumps(record) for record in self.records]
        (self.path / "records.jsonl").write_text("".join(line + "\n" for line in lines))
        if table:
            rows = [HEADER, *map(cohen_row, self.records)]
            (self.path / "cohen.tsv").write_text("".join(row + "\n" for row in rows))


def _subject(records: list[dict[str, Any]]) -> int:
    """Return the position of a certified record, not the first, whose audit found disagreements."""
    return next(
        (
            at
            for at, record in enumerate(records)
            if at > 0
            and record["radius"] > 0
            and (record.get("audit") is None or record["audit"]["disagreements"] > 0)
        ),
        len(records) - 1,
    )


Edit = Callable[[Forgery], None]


def monotone_model(constraint: str = "quadratic") -> MonDEQ:
    """A monotone DEQ whose equilibrium holds the class means' products: right for many digits.

    Ten units of the class scores, without coupling but one, so that steps only approach it.
    """
    m = 1.0 if constraint == "quadratic" else 0.5
    config = MonDEQConfig(
        input_shape=(1, 8, 8),
        num_classes=10,
        width=10,
        m=m,
        constraint=constraint,
        mean=(0.0,),
        std=(1.0,),
    )
    model, means = MonDEQ(config), MeansDEQ().means.detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        coupling = model.operator.b.weight if constraint == "quadratic" else model.operator.v
        coupling[0, 1] = 0.2
        model.source.layer.weight.copy_(means)
        model.source.layer.bias.copy_(2.0 - means.square().sum(1) / 2)
        model.head.layer.weight.copy_(torch.eye(10))
    return model.eval()


def make_proved_run(folder: Path) -> Path:
    """Certify four digits by proved labels."""
    certifier = Certifier(
        monotone_model(),
        sigma=0.25,
        n0=20,
        n=120,
        chains=24,
        method="proved",
        reference="picard:60",
    )
    certify_dataset(certifier, load_data("digits"), out=folder, skip=SKIP, limit=4, seed=SEED)
    return folder


def deterministic_certifier(method: str, **changes: Any) -> LipschitzCertifier | IntervalCertifier:
    """The certifier of a deterministic run; its solves end early enough to leave a distance."""
    if method == "lipschitz":
        return LipschitzCertifier(monotone_model(), **{"solver": "picard:40:1e-6", **changes})
    settings = {"largest": 0.1, "resolution": 1e-3, "steps": STEPS, **changes}
    return IntervalCertifier(monotone_model("absolute"), **settings)


def make_deterministic_run(folder: Path, method: str, **changes: Any) -> Path:
    """Certify ten digits by a deterministic method."""
    certifier = deterministic_certifier(method, **changes)
    certify_dataset(certifier, load_data("digits"), out=folder, skip=SKIP)
    return folder
