"""Configuration of a multiscale deep equilibrium model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deqcert.errors import ConfigurationError, unknown_name

HEADS = ("bottleneck", "pool", "flatten")


@dataclass(frozen=True, kw_only=True)
class MDEQConfig:
    """Everything that determines an MDEQ but its weights (PAPER 4).

    Attributes:
        input_shape: (C, H, W) of one image.
        num_classes: Classes, at least 2.
        channels: Channels per resolution, highest resolution first; each next one has half the
            height and width, rounded up.
        expansion: Channels inside a residual block, as a multiple of its own.
        groups: Groups of the normalisations; after fusion half as many.
        fusion_affine: Whether the normalisation after fusion has a learned scale and shift, as in
            the first public MDEQ code; the published configurations of PAPER 4 have none.
        stem_strides: Strides of the two convolutions of the stem.
        head: ``bottleneck``: the published head; ``pool``: global average of each resolution, then
            linear; ``flatten``: all of the state, then linear.
        head_channels: Channels per resolution of the bottleneck head, before expansion.
        head_expansion: Expansion of the head's bottlenecks.
        final_width: Channels before the last pooling of the bottleneck head.
        learned_start: Whether solves begin at a learnt function of the image, and not at zero; no
            part of the published model.
        dropout: Probability of dropping a channel inside a residual block while training; one
            mask per solve.
        mean: Per-channel mean of the pixels, to standardise with; one value serves all channels.
        std: Per-channel deviation of the pixels, above 0; one value serves all channels.
        init_std: Deviation of plain convolutions at the start.
        solver: Default solver.

    Raises:
        ConfigurationError: A value out of range, or tuples that do not fit each other.
        UnknownNameError: An unknown head.
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    channels: tuple[int, ...]
    expansion: int = 5
    groups: int = 8
    fusion_affine: bool = False
    stem_strides: tuple[int, int] = (1, 1)
    head: str = "bottleneck"
    head_channels: tuple[int, ...] = ()
    head_expansion: int = 4
    final_width: int = 200
    learned_start: bool = False
    dropout: float = 0.0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    init_std: float = 0.01
    solver: str = "anderson:30"

    def __post_init__(self) -> None:
        for name in ("input_shape", "channels", "stem_strides", "head_channels", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives lists
        if self.head not in HEADS:
            raise unknown_name("head", self.head, HEADS)
        self._check_sizes()
        self._check_channels()
        self._check_numbers()

    @property
    def state_shapes(self) -> list[tuple[int, int, int]]:
        """(channels, height, width) of each resolution."""
        _, height, width = self.input_shape
        for stride in self.stem_strides:
            height, width = -(-height // stride), -(-width // stride)
        shapes = []
        for count in self.channels:
            shapes.append((count, height, width))
            height, width = -(-height // 2), -(-width // 2)
        return shapes

    @property
    def state_size(self) -> int:
        """Numbers in the state of one image."""
        return sum(c * h * w for c, h, w in self.state_shapes)

    @property
    def has_injection_layer(self) -> bool:
        """Whether the stem ends in a 1x1 convolution.

        As in the public code, not with at most two resolutions and no stride (PAPER 4).
        """
        return len(self.channels) > 2 or max(self.stem_strides) > 1

    def replace(self, **changes: Any) -> MDEQConfig:
        """Return a copy with `changes`, checked again."""
        return self.from_dict({**dataclasses.asdict(self), **changes})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MDEQConfig:
        """Return the configuration with these values.

        Raises:
            UnknownNameError: A name that is no setting.
            ConfigurationError: A setting is missing, or a value out of range.
        """
        fields = {f.name: f for f in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise unknown_name("MDEQ setting", name, fields)
        required = [n for n, f in fields.items() if f.default is dataclasses.MISSING]
        missing = [name for name in required if name not in values]
        if missing:
            raise ConfigurationError(f"an MDEQ needs {', '.join(missing)}")
        return cls(**values)

    def _check_sizes(self) -> None:
        if len(self.stem_strides) != 2 or not set(self.stem_strides) <= {1, 2}:
            raise ConfigurationError(
                f"stem_strides must be two values of 1 or 2, but got {self.stem_strides}"
            )
        for name in ("expansion", "groups", "head_expansion", "final_width"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    f"{name} must be at least 1, but got {getattr(self, name)}"
                )
        _, height, width = self.state_shapes[-1] if self.channels else (0, 0, 0)
        if self.channels and len(self.channels) > 1:
            _, above, _ = self.state_shapes[-2]
            if above == 1 and height == 1 and width == 1:
                raise ConfigurationError(
                    f"{len(self.channels)} resolutions are too many for {self.input_shape} images"
                )

    def _check_channels(self) -> None:
        half = max(1, self.groups // 2)
        if not self.channels:
            raise ConfigurationError("channels must name at least one resolution")
        for count in self.channels:
            if count < 1 or count % self.groups or count % half:
                raise ConfigurationError(
                    f"channels must be multiples of groups = {self.groups}, but got {count}"
                )
        if self.head == "bottleneck" and len(self.head_channels) != len(self.channels):
            raise ConfigurationError(
                f"head_channels must have one value per resolution ({len(self.channels)}), "
                f"but got {self.head_channels}"
            )
        if any(count < 1 for count in self.head_channels):
            raise ConfigurationError(
                f"head_channels must be positive, but got {self.head_channels}"
            )

    def _check_numbers(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigurationError(f"dropout must lie in [0, 1), but got {self.dropout}")
        if self.init_std <= 0.0:
            raise ConfigurationError(f"init_std must be above 0, but got {self.init_std}")
        check_pixel_numbers(self.mean, self.std, channels=self.input_shape[0])


def check_pixel_numbers(mean: tuple[float, ...], std: tuple[float, ...], *, channels: int) -> None:
    """Raise `ConfigurationError` unless these are one value, or one per channel, std above 0."""
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ConfigurationError(
                f"{name} must have 1 value or one per channel ({channels}), but got {values}"
            )
        if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
            raise ConfigurationError(f"{name} must be finite numbers, but got {values}")
    if min(std) <= 0.0:
        raise ConfigurationError(f"std must be above 0, but got {std}")
