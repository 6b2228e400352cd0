"""Named recipes: the settings that train a model, and what they change in the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deqcert.errors import ConfigurationError, unknown_name
from deqcert.models import GradientSpec
from deqcert.solvers import SolverSpec
from deqcert.training.augment import AugmentSpec
from deqcert.training.config import TrainConfig
from deqcert.training.interval import IntervalSpec
from deqcert.training.posterior import PosteriorSpec
from deqcert.training.resized_crop import ResizedCrop
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
        needs_weights: Whether it is of use from trained weights only.
    """

    name: str
    claim: str
    settings: Mapping[str, Any]
    model: Mapping[str, Any] = field(default_factory=dict)
    needs_weights: bool = False

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

# Short solves almost from the start: ten unrolled epochs gave mdeq-small fixed points so unstable
# that the first epoch of short solves undid a third of what had been learnt.
_SHORT_SOLVE = {
    "epochs": 32,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "precision": "bfloat16",
    "short": ShortSolveSpec(
        steps=(2, 3), weights=(0.5, 0.5), warm_weight=0.0, agreement_weight=1.0
    ),
    "solver": "picard:2",
    "pretrain_epochs": 2,
    "pretrain_steps": 3,
    "jacobian_weight": 0.5,
    "jacobian_frequency": 0.05,
    "augment": AugmentSpec.crop_and_flip(4),
    "validation_share": 0.005,
    "validate_every": 1,
    "validation_copies": 1,
    "card_copies": 2,
    "card_every": 20,
}

# From trained weights: no unrolled epochs, which would undo what is there, and a lower rate.
_FINE_TUNE = {**_SHORT_SOLVE, "epochs": 1, "learning_rate": 1e-3, "pretrain_epochs": 0}

_MNIST = {
    **_SHORT_SOLVE,
    "epochs": 6,
    "short": ShortSolveSpec(
        steps=(2, 3), weights=(0.5, 0.5), warm_weight=0.5, agreement_weight=1.0
    ),
    "pretrain_epochs": 1,
    "augment": AugmentSpec(rotate=8.0, shift=1.0, scale=0.06, stretch=0.04, shear=0.06),
    "validation_share": 0.01,
    "card_copies": 1,
    "card_every": 5,
}

# Monotone DEQs settle in a few steps by construction: no unrolling, no short solves. The strong
# decay keeps ||U|| / m small, their Lipschitz constant.
_MONOTONE = {
    "epochs": 12,
    "batch_size": 128,
    "learning_rate": 5e-3,
    "weight_decay": 0.15,
    "objective": "equilibrium",
    "solver": "picard:20:1e-3",
    "gradient": GradientSpec(method="implicit", solver=SolverSpec.parse("picard:20:1e-3")),
    "validation_copies": 1,
    "card_copies": 1,
}

_PUBLISHED = {
    "batch_size": 96,
    "warmup_steps": 0,
    "final_share": 1e-3,
    "weight_decay": 0.0,
    "betas": (0.9, 0.999),
    "clip_norm": None,
    "ema_decay": 0.0,
    "learning_rate": 1e-3,
    "objective": "equilibrium",
    "solver": "broyden:8:1e-3",
    "gradient": GradientSpec(method="implicit", solver=SolverSpec.parse("broyden:7:1e-3")),
    "pretrain_updates": 16_000,
    "pretrain_steps": 8,
    "jacobian_until": 90,
    "solver_jitter": (-2, 1),
    "augment": AugmentSpec.crop_and_flip(4),
    "validation_share": 0.0,
    "card_copies": 2,
    "card_every": 20,
}

_PUBLISHED_SMALL = {
    **_PUBLISHED,
    "epochs": 120,
    "jacobian_weight": 0.5,
    "jacobian_frequency": 0.05,
}

_PUBLISHED_LARGE = {
    **_PUBLISHED,
    "epochs": 220,
    "jacobian_weight": 0.4,
    "jacobian_frequency": 0.02,
}

_PUBLISHED_IMAGENET = {
    **_PUBLISHED,
    "epochs": 100,
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.04,
    "final_share": 1e-6 / 0.04,
    "weight_decay": 2e-5,
    "solver": "broyden:14",
    "gradient": GradientSpec(method="implicit", solver=SolverSpec.parse("broyden:14")),
    "pretrain_updates": 510_000,
    "pretrain_steps": 5,
    "jacobian_weight": 2.5,
    "jacobian_frequency": 0.08,
    "jacobian_until": None,
    "jacobian_growth": 0.1,
    "pretrain_jacobian_weight": 0.03,
    "augment": AugmentSpec.crop_and_flip(ResizedCrop()),
    "card_every": 50,
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
            model={"dropout": 0.0, "solver": "picard:3"},
        ),
        Recipe(
            name="fine-tune",
            claim="trained weights of many steps or of another noise level: one epoch to few steps",
            settings=_FINE_TUNE,
            model={"dropout": 0.0, "solver": "picard:3"},
            needs_weights=True,
        ),
        Recipe(
            name="mdeq-mnist",
            claim="the shipped MNIST weights: short solves almost from the start",
            settings=_MNIST,
        ),
        Recipe(
            name="mdeq-fashion",
            claim="the shipped Fashion-MNIST weights: the same, mirrored too, for longer",
            settings={
                **_MNIST,
                "epochs": 10,
                "augment": AugmentSpec(rotate=4.0, shift=1.0, scale=0.06, flip=True),
            },
        ),
        Recipe(
            name="mondeq-fc",
            claim="the shipped monotone DEQs on MNIST: implicit gradients, strong decay",
            settings=_MONOTONE,
        ),
        Recipe(
            name="mondeq-conv",
            claim="convolutional monotone DEQs: the same, fewer epochs",
            settings={**_MONOTONE, "epochs": 3, "learning_rate": 3e-3, "weight_decay": 0.05},
        ),
        Recipe(
            name="mondeq-ibp",
            claim="monotone DEQs with interval bounds on MNIST: interval training",
            settings={
                **_MONOTONE,
                "learning_rate": 3e-3,
                "weight_decay": 0.0,
                "objective": "interval",
                "interval": IntervalSpec(radius=0.1, weight=0.5),
            },
        ),
        Recipe(
            name="published-small",
            claim="MDEQ-SMALL on CIFAR-10 as published (PAPER 4)",
            settings=_PUBLISHED_SMALL,
        ),
        Recipe(
            name="published-large",
            claim="MDEQ-LARGE on CIFAR-10 as published (PAPER 4)",
            settings=_PUBLISHED_LARGE,
        ),
        Recipe(
            name="published-imagenet",
            claim="MDEQ-SMALL on ImageNet as published (PAPER 4)",
            settings=_PUBLISHED_IMAGENET,
        ),
    )
}

PUBLISHED = {
    "mdeq-small": "published-small",
    "mdeq-large": "published-large",
    "mdeq-small-imagenet": "published-imagenet",
}
"""What ``published`` means for each architecture."""


def find_recipe(name: str | None, *, model: str) -> Recipe:
    """Return a recipe by name.

    Args:
        name: A name of `RECIPES`, or ``published`` for the one of the architecture; None means
            the one of the architecture's name (without ``-fashion`` where there is none), and
            ``short-solve`` where there is none.
        model: Name of the architecture.

    Raises:
        UnknownNameError: No such recipe.
        ConfigurationError: No recipe was published for this architecture.
    """
    if name is None:
        name = next(
            (own for own in (model, model.removesuffix("-fashion")) if own in RECIPES),
            "short-solve",
        )
    if name == "published":
        if model not in PUBLISHED:
            raise ConfigurationError(
                f"recipes were published for {', '.join(PUBLISHED)}, but got {model!r}"
            )
        name = PUBLISHED[model]
    if name not in RECIPES:
        raise unknown_name("recipe", name, [*RECIPES, "published"])
    return RECIPES[name]
