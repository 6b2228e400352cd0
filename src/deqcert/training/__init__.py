"""Training under Gaussian noise: short-solve and equilibrium objectives, resumable to the bit."""

from __future__ import annotations

from deqcert.training.augment import AugmentSpec
from deqcert.training.config import ShortSolveSpec, TrainConfig
from deqcert.training.evaluate import Evaluation, evaluate
from deqcert.training.loop import TrainResult, train
from deqcert.training.posterior import PosteriorSpec
from deqcert.training.progress import TrainWatch, console_progress

__all__ = [
    "AugmentSpec",
    "Evaluation",
    "PosteriorSpec",
    "ShortSolveSpec",
    "TrainConfig",
    "TrainResult",
    "TrainWatch",
    "console_progress",
    "evaluate",
    "train",
]
