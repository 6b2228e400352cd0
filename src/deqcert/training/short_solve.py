"""Settings of the short-solve objective."""

from __future__ import annotations

from dataclasses import dataclass

from deqcert.errors import ConfigurationError
from deqcert.training.checks import check_integers, check_number


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
        check_integers(self, at_least_1=("warm_steps",))
        if not self.steps or any(type(k) is not int or k < 1 for k in self.steps):
            raise ConfigurationError(f"short steps must be integers >= 1, but got {self.steps}")
        if list(self.steps) != sorted(set(self.steps)):
            raise ConfigurationError(f"short steps must ascend, but got {self.steps}")
        if len(self.weights) != len(self.steps):
            raise ConfigurationError(
                f"short steps {self.steps} need as many weights, but got {self.weights}"
            )
        for weight in self.weights:
            check_number("short weights", weight, low=0.0)
        check_number("equilibrium_weight", self.equilibrium_weight, low=0.0, open_low=True)
        for name in ("closeness_weight", "warm_weight", "agreement_weight"):
            check_number(name, getattr(self, name), low=0.0)
