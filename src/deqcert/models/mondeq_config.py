"""Settings of a monotone DEQ: one frozen record, checked once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deqcert.errors import ConfigurationError, unknown_name
from deqcert.models.mdeq_config import check_pixel_numbers

KINDS = ("dense", "conv")
CONSTRAINTS = ("quadratic", "absolute")
SPLITTINGS = ("forward-backward", "peaceman-rachford")


@dataclass(frozen=True, kw_only=True)
class MonDEQConfig:
    """A monotone DEQ z* = relu(W z* + U x + b), I - W >= m I.

    Attributes:
        input_shape: (C, H, W) of one image.
        num_classes: Classes, at least 2.
        kind: ``dense``, or ``conv``: zero-padded convolutions at the size of the image.
        width: Units, or channels of a convolution, at least 1.
        kernel: Odd width of the convolutions' kernels.
        m: Strong monotonicity, > 0; below 1 for the ``absolute`` constraint. Larger values give
            smaller Lipschitz constants and faster solves, and a more constrained model.
        constraint: ``quadratic``: W = (1 - m) I - A'A + B - B' (Winston, Kolter 2020); or
            ``absolute``: I - abs(W) >= m I, so that interval bounds exist (Wei, Kolter 2022).
        pool: Side of the average pooling before the linear head of a ``conv`` model; it must
            divide height and width.
        splitting: What one cell evaluation is: a ``forward-backward`` or a ``peaceman-rachford``
            step. The latter needs a matrix inverse and is for ``dense`` models; what is published
            for convolutions inverts the circular operator, which is not the one that runs.
        mean: Pixel mean, one value or one per channel.
        std: Pixel standard deviation likewise, > 0.
        solver: Default solver.

    Raises:
        ConfigurationError: A value out of range, or values that do not fit each other.
        UnknownNameError: Unknown kind, constraint or splitting.
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    kind: str = "dense"
    width: int = 40
    kernel: int = 3
    m: float = 1.0
    constraint: str = "quadratic"
    pool: int = 1
    splitting: str = "forward-backward"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    solver: str = "picard:100:1e-6"

    def __post_init__(self) -> None:
        for name in ("input_shape", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives lists
        for name, known in (
            ("kind", KINDS),
            ("constraint", CONSTRAINTS),
            ("splitting", SPLITTINGS),
        ):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        self._check_sizes()
        self._check_numbers()

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of the state of one image."""
        return (self.width,) if self.kind == "dense" else (self.width, *self.input_shape[1:])

    def replace(self, **changes: Any) -> MonDEQConfig:
        """Return a copy with `changes`, checked again."""
        return self.from_dict({**dataclasses.asdict(self), **changes})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MonDEQConfig:
        """Return the configuration with these values.

        Raises:
            UnknownNameError: A name that is no setting.
            ConfigurationError: A setting is missing, or a value out of range.
        """
        fields = {f.name: f for f in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise unknown_name("monotone DEQ setting", name, fields)
        missing = [name for name in ("input_shape", "num_classes") if name not in values]
        if missing:
            raise ConfigurationError(f"a monotone DEQ needs {', '.join(missing)}")
        return cls(**values)

    def _check_sizes(self) -> None:
        for name in ("width", "kernel", "pool"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigurationError(f"{name} must be an integer >= 1, but got {value!r}")
        if self.kernel % 2 == 0:
            raise ConfigurationError(f"kernel must be odd, but got {self.kernel}")
        if self.kind == "dense" and self.pool != 1:
            raise ConfigurationError(f"pool is for conv models, but got {self.pool}")
        if self.kind == "conv" and any(side % self.pool for side in self.input_shape[1:]):
            raise ConfigurationError(
                f"pool must divide the image size {self.input_shape[1:]}, but got {self.pool}"
            )
        if self.kind == "conv" and self.splitting == "peaceman-rachford":
            raise ConfigurationError("peaceman-rachford splitting is for dense models")

    def _check_numbers(self) -> None:
        if not (math.isfinite(self.m) and self.m > 0):
            raise ConfigurationError(f"m must be finite and > 0, but got {self.m}")
        if self.constraint == "absolute" and self.m >= 1:
            raise ConfigurationError(f"m must be below 1 where abs(W) is bound, but got {self.m}")
        check_pixel_numbers(self.mean, self.std, channels=self.input_shape[0])
