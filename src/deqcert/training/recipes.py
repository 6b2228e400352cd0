"""Named recipes: the settings that train a model, and what they change in the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deqcert.training.augment import AugmentSpec
from deqcert.training.config import TrainConfig
from deqcert.training.posterior import PosteriorSpec
from deqcert.training.short_solve import ShortSolveSpec


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train one kind of model.

    Attributes:
        name: The name.
        claim: What it is for, in a line.
        settings: Values of `TrainConfig` that differ from its defaults.
        model: Settings of the model that differ from the named architecture's: those that matter
            in training alone (dropout), and the default solver of the finished model.
    """

    name: str
    claim: str
    settings: Mapping[str, Any]
    model: Mapping[str, Any] = field(default_factory=dict)

    def config(self, *, sigma: float, **changes: Any) -> TrainConfig:
        """Return the settings at noise level `sigma`, with `changes`.

        Raises:
            UnknownNameError: A change that is no setting.
            ConfigurationError: A value out of range.
        """
        return TrainConfig.from_dict({**self.settings, **changes, "sigma": sigma})


_DIGITS = {
    "epochs": 180,
    "batch_size": 50,
    "short": ShortSolveSpec(closeness_weight=0.5, warm_weight=0.5, agreement_weight=1.0),
    "pretrain_epochs": 80,
    "pretrain_steps": 3,
    "augment": AugmentSpec(),
    "posterior": PosteriorSpec(),
}

_SHORT_SOLVE = {
    "epochs": 5,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "precision": "bfloat16",
    "short": ShortSolveSpec(
        steps=(2, 3), weights=(0.5, 0.5), warm_weight=0.0, agreement_weight=1.0
    ),
    "solver": "picard:2",
    "pretrain_epochs": 4,
    "pretrain_steps": 3,
    "jacobian_weight": 0.5,
    "jacobian_frequency": 0.05,
    "augment": AugmentSpec.crop_and_flip(4),
    "validation_share": 0.005,
    "validate_every": 5,
    "validation_copies": 1,
    "card_copies": 2,
    "card_every": 20,
}

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="mdeq-digits",
            claim="the shipped digits weights: short solves, posterior targets",
            settings=_DIGITS,
        ),
        Recipe(
            name="short-solve",
            claim="photographs on a CPU: unrolled, then short solves; bfloat16, crops and flips",
            settings=_SHORT_SOLVE,
            model={"dropout": 0.0, "solver": "picard:5"},
        ),
    )
}
