"""Training under Gaussian noise: short-solve and equilibrium objectives, resumable to the bit."""

from __future__ import annotations

from deqcert.training.augment import AugmentSpec
from deqcert.training.config import TrainConfig
from deqcert.training.evaluate import Evaluation, evaluate
from deqcert.training.loop import TrainResult, train
from deqcert.training.losses import slow_products
from deqcert.training.posterior import PosteriorSpec
from deqcert.training.progress import TrainWatch, console_progress
from deqcert.training.recipes import Recipe, find_recipe
from deqcert.training.resized_crop import ResizedCrop
from deqcert.training.short_solve import ShortSolveSpec
from deqcert.training.smooth_adv import SmoothAdvSpec

__all__ = [
    "AugmentSpec",
    "Evaluation",
    "PosteriorSpec",
    "Recipe",
    "ResizedCrop",
    "ShortSolveSpec",
    "SmoothAdvSpec",
    "TrainConfig",
    "TrainResult",
    "TrainWatch",
    "console_progress",
    "evaluate",
    "find_recipe",
    "slow_products",
    "train",
]
