"""Settings of a training run: one frozen record, checked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deqcert.errors import ConfigurationError, unknown_name
from deqcert.models import GradientSpec
from deqcert.smoothing.noise import check_seed
from deqcert.solvers import SolverSpec
from deqcert.training.augment import AugmentSpec
from deqcert.training.checks import check_integers, check_number, require_known
from deqcert.training.interval import IntervalSpec
from deqcert.training.posterior import PosteriorSpec
from deqcert.training.short_solve import ShortSolveSpec
from deqcert.training.smooth_adv import SmoothAdvSpec

OBJECTIVES = ("short-solve", "equilibrium", "interval")
OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that, with data and model, determines the trained weights.

    The defaults are neutral; recipes for data and models are in `deqcert.training.recipes`.

    Attributes:
        sigma: Standard deviation of the Gaussian noise on the pixels, which lie in [0, 1]; >= 0.
        epochs: Passes over the training images, >= 1.
        batch_size: Images per step, >= 2. Each image is seen under fresh noise in every epoch; a
            last, smaller batch is left out.
        optimizer: ``adamw``, or ``sgd`` with Nesterov momentum.
        learning_rate: Peak learning rate, > 0.
        final_share: Share of the peak left at the end of the cosine, in [0, 1].
        warmup_steps: Steps of linear increase before it, >= 0.
        weight_decay: Decay of tensors with two or more dimensions, >= 0; decoupled for AdamW,
            added to the gradient for SGD.
        betas: Decays of AdamW's two averages, in [0, 1).
        momentum: Momentum of SGD, in (0, 1).
        clip_norm: Largest norm of the gradient, > 0; None does not limit it.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        ema_decay: Decay of the average of the weights, which is what training returns; in [0, 1),
            0 returns the last weights themselves.
        precision: ``float32``, or ``bfloat16`` for the convolutions of training (autocast); the
            Jacobian penalty, the weights and every evaluation stay in float32. Not for implicit
            gradients, whose linear systems eight bits do not solve.
        objective: ``short-solve``, ``equilibrium``, or ``interval`` for monotone DEQs with interval
            bounds.
        short: Settings of the first; see `ShortSolveSpec`.
        interval: Settings of the last; see `IntervalSpec`.
        solver: How equilibria are solved while training; the short-solve objective starts it where
            the short solve ended.
        gradient: How gradients are taken there.
        pretrain_epochs: Epochs at the start that train the unrolled network instead, >= 0.
        pretrain_updates: Optimiser steps that do so after those epochs, >= 0.
        pretrain_steps: Solver steps unrolled there, >= 1.
        jacobian_weight: Weight of `models.jacobian_penalty` at the equilibrium, >= 0.
        jacobian_frequency: Share of the steps that carry it, in [0, 1].
        jacobian_until: Epochs from the start in which it applies; None means all, >= 0.
        jacobian_growth: Added to its weight per 50,000 steps, >= 0.
        pretrain_jacobian_weight: Its weight during pre-training, at the last unrolled state, >= 0.
        solver_jitter: Lowest and highest number of steps, drawn uniformly, that the solver takes
            more on the steps that carry the penalty (PAPER 4); low <= 0 <= high.
        augment: Crops, flips, rotations and the like before the noise; None turns them off.
        smooth_adv: Attack on the smoothed classifier, see `SmoothAdvSpec`; None trains on Gaussian
            noise alone.
        posterior: Soft targets, see `PosteriorSpec`; None trains on the labels alone.
        validation_share: Share of the training images held out, in [0, 1).
        validate_every: Epochs between validations under noise, >= 1; the last is always validated.
        validation_copies: Noisy copies of every held-out image, >= 1.
        card_copies: The same for the finished model's card, and for the test images there, >= 1.
        card_every: Of the test images, the card takes every so many-th, from the first, >= 1; 20
            gives the usual CIFAR-10 subset.
        seed: Seed of everything random, >= 0.

    Raises:
        ConfigurationError: A value out of range.
        UnknownNameError: Another objective.
    """

    sigma: float
    epochs: int = 120
    batch_size: int = 96
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    final_share: float = 0.0
    warmup_steps: int = 100
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    momentum: float = 0.9
    clip_norm: float | None = 1.0
    label_smoothing: float = 0.0
    ema_decay: float = 0.998
    precision: str = "float32"
    objective: str = "short-solve"
    short: ShortSolveSpec = field(default_factory=ShortSolveSpec)
    interval: IntervalSpec = field(default_factory=IntervalSpec)
    solver: str = "picard:3"
    gradient: GradientSpec = field(default_factory=lambda: GradientSpec(method="phantom", steps=1))
    pretrain_epochs: int = 0
    pretrain_updates: int = 0
    pretrain_steps: int = 3
    jacobian_weight: float = 0.0
    jacobian_frequency: float = 0.05
    jacobian_until: int | None = None
    jacobian_growth: float = 0.0
    pretrain_jacobian_weight: float = 0.0
    solver_jitter: tuple[int, int] = (0, 0)
    augment: AugmentSpec | None = None
    posterior: PosteriorSpec | None = None
    smooth_adv: SmoothAdvSpec | None = None
    validation_share: float = 0.05
    validate_every: int = 10
    validation_copies: int = 10
    card_copies: int = 20
    card_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("betas", "solver_jitter"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives lists
        solver = SolverSpec.parse(self.solver, within="training")
        object.__setattr__(self, "solver", str(solver))
        check_seed(self.seed)
        if self.objective not in OBJECTIVES:
            raise unknown_name("objective", self.objective, OBJECTIVES)
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, OPTIMIZERS)
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.precision == "bfloat16" and self.gradient.method == "implicit":
            raise ConfigurationError(
                "precision bfloat16 needs unrolled or phantom gradients, but got implicit ones"
            )
        if self.posterior and self.augment and self.augment.resized_crop:
            raise ConfigurationError(
                "posterior targets know the training images whole, not their resized crops; leave "
                "out posterior or augment.resized_crop"
            )
        self._check_counts()
        self._check_ranges()

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them."""
        values = dataclasses.asdict(self)
        values["gradient"]["solver"] = str(self.gradient.solver)
        resized_crop = (values["augment"] or {}).get("resized_crop") or {}
        for part, name in (
            (values, "betas"),
            (values, "solver_jitter"),
            (values["short"], "steps"),
            (values["short"], "weights"),
            *((resized_crop, name) for name in resized_crop),
        ):
            part[name] = list(part[name])
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Return the configuration `to_dict` gave.

        Raises:
            UnknownNameError: A name that is no setting.
            ConfigurationError: A setting is missing or out of range.
        """
        require_known(cls, values)
        if "sigma" not in values:
            raise ConfigurationError("training needs sigma")
        parts = dict(values)
        nested = {
            "short": ShortSolveSpec,
            "interval": IntervalSpec,
            "gradient": GradientSpec,
            "augment": AugmentSpec,
            "posterior": PosteriorSpec,
            "smooth_adv": SmoothAdvSpec,
        }
        for name, kind in nested.items():
            if isinstance(parts.get(name), Mapping):
                require_known(kind, parts[name], prefix=f"{name}.")
                parts[name] = kind(**parts[name])
        return cls(**parts)

    def _check_counts(self) -> None:
        check_integers(
            self,
            at_least_1=(
                "epochs",
                "pretrain_steps",
                "validate_every",
                "validation_copies",
                "card_copies",
                "card_every",
            ),
            at_least_0=("warmup_steps", "pretrain_epochs", "pretrain_updates"),
        )
        if self.jacobian_until is not None:
            check_integers(self, at_least_0=("jacobian_until",))
        self._check_jitter()
        if type(self.batch_size) is not int or self.batch_size < 2:  # BatchNorm needs two images
            raise ConfigurationError(
                f"batch_size must be an integer >= 2, but got {self.batch_size!r}"
            )

    def _check_jitter(self) -> None:
        jitter = self.solver_jitter
        if len(jitter) != 2 or any(type(k) is not int for k in jitter):
            raise ConfigurationError(f"solver_jitter must be two integers, but got {jitter}")
        if not jitter[0] <= 0 <= jitter[1]:
            raise ConfigurationError(f"solver_jitter must hold low <= 0 <= high, but got {jitter}")
        steps = SolverSpec.parse(self.solver).max_steps
        if steps + jitter[0] < 1:
            raise ConfigurationError(
                f"solver_jitter {jitter} leaves no step of solver {self.solver!r}"
            )

    def _check_ranges(self) -> None:
        for name in (
            "sigma",
            "weight_decay",
            "jacobian_weight",
            "jacobian_growth",
            "pretrain_jacobian_weight",
        ):
            check_number(name, getattr(self, name), low=0.0)
        check_number("momentum", self.momentum, low=0.0, high=1.0, open_low=True, open_high=True)
        check_number("learning_rate", self.learning_rate, low=0.0, open_low=True)
        if self.clip_norm is not None:
            check_number("clip_norm", self.clip_norm, low=0.0, open_low=True)
        for name in ("final_share", "jacobian_frequency"):
            check_number(name, getattr(self, name), low=0.0, high=1.0)
        for name in ("label_smoothing", "ema_decay", "validation_share"):
            check_number(name, getattr(self, name), low=0.0, high=1.0, open_high=True)
        if len(self.betas) != 2:
            raise ConfigurationError(f"betas must be two numbers, but got {self.betas}")
        for beta in self.betas:
            check_number("betas", beta, low=0.0, high=1.0, open_high=True)
