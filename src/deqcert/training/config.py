"""Settings of a training run: one frozen record, checked once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deqcert.errors import ConfigurationError, unknown_name
from deqcert.models import GradientSpec
from deqcert.smoothing.noise import check_seed
from deqcert.solvers import SolverSpec
from deqcert.training.augment import AugmentSpec
from deqcert.training.posterior import PosteriorSpec

OBJECTIVES = ("short-solve", "equilibrium")


@dataclass(frozen=True, kw_only=True)
class ShortSolveSpec:
    """What the ``short-solve`` objective asks of the first Picard steps.

    Attributes:
        steps: Steps whose states are classified, ascending, each >= 1. The last one is also drawn
            to the equilibrium.
        weights: Weight of each of those cross-entropies, >= 0.
        equilibrium_weight: Weight of the cross-entropy at the equilibrium, > 0. The cross-entropies
            are averaged with these weights.
        closeness_weight: Weight of the mean over images of ||z_last - z*||^2 / ||z*||^2, >= 0.
        warm_weight: Weight of the same two terms for the state reached from the equilibrium of
            *another* noisy copy of the image, >= 0; 0 leaves them out. A cell that forgets its
            start gives serialized draws the labels of cold ones.
        warm_steps: Picard steps taken from there, >= 1.
        agreement_weight: Weight of the divergence KL(p* || p), summed over the short and the warm
            states, of their class probabilities p from those at the equilibrium, p*, which count as
            given, >= 0. Labels, unlike states, must agree near the decision boundary too.

    Raises:
        ConfigurationError: A value out of range, or as many weights as steps are not given.
    """

    steps: tuple[int, ...] = (2, 3)
    weights: tuple[float, ...] = (0.5, 0.5)
    equilibrium_weight: float = 1.0
    closeness_weight: float = 1.0
    warm_weight: float = 1.0
    warm_steps: int = 1
    agreement_weight: float = 2.0

    def __post_init__(self) -> None:
        for name in ("steps", "weights"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives lists
        _check_integers(self, at_least_1=("warm_steps",))
        if not self.steps or any(type(k) is not int or k < 1 for k in self.steps):
            raise ConfigurationError(f"short steps must be integers >= 1, but got {self.steps}")
        if list(self.steps) != sorted(set(self.steps)):
            raise ConfigurationError(f"short steps must ascend, but got {self.steps}")
        if len(self.weights) != len(self.steps):
            raise ConfigurationError(
                f"short steps {self.steps} need as many weights, but got {self.weights}"
            )
        for weight in self.weights:
            _check_number("short weights", weight, low=0.0)
        _check_number("equilibrium_weight", self.equilibrium_weight, low=0.0, open_low=True)
        for name in ("closeness_weight", "warm_weight", "agreement_weight"):
            _check_number(name, getattr(self, name), low=0.0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that, with data and model, determines the trained weights.

    The defaults are the recipe of the shipped ``mdeq-digits`` weights.

    Attributes:
        sigma: Standard deviation of the Gaussian noise on the pixels, which lie in [0, 1]; >= 0.
        epochs: Passes over the training images, >= 1.
        batch_size: Images per step, >= 2. Each image is seen under fresh noise in every epoch; a
            last, smaller batch is left out.
        learning_rate: Peak learning rate of AdamW, > 0.
        final_share: Share of the peak left at the end of the cosine, in [0, 1].
        warmup_steps: Steps of linear increase before it, >= 0.
        weight_decay: Decoupled decay of tensors with two or more dimensions, >= 0.
        betas: Decays of AdamW's two averages, in [0, 1).
        clip_norm: Largest norm of the gradient, > 0.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
        ema_decay: Decay of the average of the weights, which is what training returns; in [0, 1),
            0 returns the last weights themselves.
        objective: ``short-solve`` or ``equilibrium``.
        short: Settings of the former; see `ShortSolveSpec`.
        solver: How equilibria are solved while training; the short-solve objective starts it where
            the short solve ended.
        gradient: How gradients are taken there.
        pretrain_epochs: Epochs at the start that train the unrolled network instead, >= 0.
        pretrain_steps: Steps unrolled there, >= 1.
        jacobian_weight: Weight of `models.jacobian_penalty` at the equilibrium, >= 0.
        jacobian_frequency: Share of the steps that carry it, in [0, 1].
        augment: Shifts, rotations and the like before the noise; None turns them off.
        posterior: Soft targets, see `PosteriorSpec`; None trains on the labels alone.
        validation_share: Share of the training images held out, in [0, 1).
        validate_every: Epochs between validations under noise, >= 1; the last is always validated.
        validation_copies: Noisy copies of every held-out image, >= 1.
        card_copies: The same for the finished model's card, and for the test images there, >= 1.
        seed: Seed of everything random, >= 0.

    Raises:
        ConfigurationError: A value out of range.
        UnknownNameError: Another objective.
    """

    sigma: float
    epochs: int = 160
    batch_size: int = 50
    learning_rate: float = 3e-3
    final_share: float = 0.0
    warmup_steps: int = 100
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    ema_decay: float = 0.998
    objective: str = "short-solve"
    short: ShortSolveSpec = field(default_factory=ShortSolveSpec)
    solver: str = "picard:3"
    gradient: GradientSpec = field(default_factory=lambda: GradientSpec(method="phantom", steps=1))
    pretrain_epochs: int = 60
    pretrain_steps: int = 3
    jacobian_weight: float = 0.0
    jacobian_frequency: float = 0.05
    augment: AugmentSpec | None = field(default_factory=AugmentSpec)
    posterior: PosteriorSpec | None = field(default_factory=PosteriorSpec)
    validation_share: float = 0.05
    validate_every: int = 10
    validation_copies: int = 10
    card_copies: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        object.__setattr__(self, "solver", str(SolverSpec.parse(self.solver)))
        check_seed(self.seed)
        if self.objective not in OBJECTIVES:
            raise unknown_name("objective", self.objective, OBJECTIVES)
        self._check_counts()
        self._check_ranges()

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them."""
        values = dataclasses.asdict(self)
        values["gradient"]["solver"] = str(self.gradient.solver)
        for part, name in (
            (values, "betas"),
            (values["short"], "steps"),
            (values["short"], "weights"),
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
        _require_known(cls, values)
        if "sigma" not in values:
            raise ConfigurationError("training needs sigma")
        parts = dict(values)
        nested = {
            "short": ShortSolveSpec,
            "gradient": GradientSpec,
            "augment": AugmentSpec,
            "posterior": PosteriorSpec,
        }
        for name, kind in nested.items():
            if isinstance(parts.get(name), Mapping):
                _require_known(kind, parts[name], prefix=f"{name}.")
                parts[name] = kind(**parts[name])
        return cls(**parts)

    def _check_counts(self) -> None:
        _check_integers(
            self,
            at_least_1=(
                "epochs",
                "pretrain_steps",
                "validate_every",
                "validation_copies",
                "card_copies",
            ),
            at_least_0=("warmup_steps", "pretrain_epochs"),
        )
        if type(self.batch_size) is not int or self.batch_size < 2:  # BatchNorm needs two images
            raise ConfigurationError(
                f"batch_size must be an integer >= 2, but got {self.batch_size!r}"
            )

    def _check_ranges(self) -> None:
        for name in ("sigma", "weight_decay", "jacobian_weight"):
            _check_number(name, getattr(self, name), low=0.0)
        for name in ("learning_rate", "clip_norm"):
            _check_number(name, getattr(self, name), low=0.0, open_low=True)
        for name in ("final_share", "jacobian_frequency"):
            _check_number(name, getattr(self, name), low=0.0, high=1.0)
        for name in ("label_smoothing", "ema_decay", "validation_share"):
            _check_number(name, getattr(self, name), low=0.0, high=1.0, open_high=True)
        if len(self.betas) != 2:
            raise ConfigurationError(f"betas must be two numbers, but got {self.betas}")
        for beta in self.betas:
            _check_number("betas", beta, low=0.0, high=1.0, open_high=True)


def _require_known(kind: Any, values: Mapping[str, Any], prefix: str = "") -> None:
    known = [prefix + f.name for f in dataclasses.fields(kind)]
    for name in values:
        if prefix + name not in known:
            raise unknown_name("training setting", prefix + name, known)


def _check_integers(
    settings: Any, *, at_least_1: tuple[str, ...] = (), at_least_0: tuple[str, ...] = ()
) -> None:
    for low, names in ((1, at_least_1), (0, at_least_0)):
        for name in names:
            value = getattr(settings, name)
            if type(value) is not int or value < low:
                raise ConfigurationError(f"{name} must be an integer >= {low}, but got {value!r}")


def _check_number(
    name: str,
    value: Any,
    *,
    low: float,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Raise ConfigurationError unless `value` is a finite number of that interval."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and math.isfinite(value):
        above = value > low if open_low else value >= low
        below = value < high if open_high else value <= high
        if above and below:
            return
    left = "(" if open_low else "["
    right = ")" if open_high or high == math.inf else "]"
    raise ConfigurationError(
        f"{name} must lie in {left}{low:g}, {high:g}{right}, but got {value!r}"
    )
