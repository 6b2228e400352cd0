"""Trains digits for `test_resume`, which kills it; run as a script: OUT SECONDS."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from deqcert.data import load_data
from deqcert.models import EquilibriumModel, build
from deqcert.training import (
    AugmentSpec,
    PosteriorSpec,
    ShortSolveSpec,
    TrainConfig,
    TrainResult,
    TrainWatch,
    train,
)
from tests.training.small import few_digits

CONFIG = TrainConfig(
    sigma=0.5,
    epochs=6,
    batch_size=16,
    warmup_steps=3,
    short=ShortSolveSpec(steps=(1, 2), weights=(0.5, 0.5)),
    jacobian_weight=0.1,
    jacobian_frequency=0.5,
    validation_share=0.2,
    validate_every=2,
    validation_copies=1,
    card_copies=1,
    pretrain_epochs=1,
    pretrain_steps=2,
    augment=AugmentSpec(),
    posterior=PosteriorSpec(),
    seed=2**40 + 7,
)


def model() -> EquilibriumModel:
    torch.manual_seed(1)
    return build("mdeq-digits", channels=(8, 8), expansion=1, groups=1, dropout=0.2)


def run(
    out: Path,
    *,
    checkpoint_seconds: float = 120.0,
    pause_after: float | None = None,
    watch: TrainWatch | None = None,
) -> TrainResult:
    return train(
        model(),
        few_digits(load_data("digits", split="train"), 100),
        out=out,
        config=CONFIG,
        checkpoint_seconds=checkpoint_seconds,
        pause_after=pause_after,
        watch=watch,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), checkpoint_seconds=float(sys.argv[2]))
