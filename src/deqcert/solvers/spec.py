"""Which solver runs, for how long, and when a row may stop: a value that prints and parses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from deqcert.errors import ConfigurationError, unknown_name

DEFAULT_MEMORY = {"picard": 1, "anderson": 6, "broyden": 30}
"""Past iterates each solver keeps unless told otherwise; its keys are the solver names."""

Exit = tuple[int, float]
"""Steps after which logits are looked at, and the lead above which a row stops there."""

_EXTRAS = ("memory", "ridge", "mixing", "exits")
_USED = {"picard": ("mixing", "exits"), "anderson": ("memory", "ridge", "mixing")}
_USED["broyden"] = ("memory", "mixing")


@dataclass(frozen=True)
class SolverSpec:
    """Settings of one fixed-point solve; equal settings are equal values with one string form.

    >>> SolverSpec.parse("anderson:30:1e-3") == SolverSpec("anderson", 30, tol=1e-3, memory=6)
    True
    >>> str(SolverSpec("anderson", 30, mixing=0.8))
    'anderson:30,mixing=0.8'
    >>> SolverSpec.parse("picard:8,exits=2@0.7+4@0.15").exits
    ((2, 0.7), (4, 0.15))

    Attributes:
        name: ``picard``, ``anderson`` or ``broyden``.
        max_steps: Cell evaluations per row at most, >= 1; exactly that many where tol is 0.
        tol: Relative residual at which a row stops, >= 0; 0 never stops early.
        memory: Past iterates kept, >= 1: Anderson's window (pairs of iterate and value, default
            6), or the steps after which Broyden restarts (default 30). 0 stands for the default.
        ridge: Absolute term added to the diagonal of Anderson's Gram matrix, >= 0.
        mixing: Damping of every step, in (0, 1]; 1 takes full steps.
        exits: Early exits of a classification by Picard steps without a tolerance, pairs (steps,
            lead), steps ascending and below `max_steps`: after so many steps the logits are
            looked at, and a row whose lead over the runner-up is above `lead` keeps that label;
            the others go on (`models.rows.solve_rows`; BranchyNet, Teerapittayanon et al. 2016).
            Each look costs a classification. In a string ``exits=2@0.7+4@0.15``.

    Raises:
        UnknownNameError: `name` is no solver.
        ConfigurationError: A setting is out of range, or the solver does not use it.
    """

    name: str
    max_steps: int
    tol: float = 0.0
    memory: int = 0
    ridge: float = 1e-4
    mixing: float = 1.0
    exits: tuple[Exit, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in DEFAULT_MEMORY:
            raise unknown_name("solver", self.name, DEFAULT_MEMORY)
        if self.memory == 0 and type(self.memory) is int:
            object.__setattr__(self, "memory", DEFAULT_MEMORY[self.name])
        for key in ("max_steps", "memory"):
            value = getattr(self, key)
            if type(value) is not int or value < 1:
                raise ConfigurationError(f"solver {key} must be an integer >= 1, but got {value!r}")
        for key in ("tol", "ridge", "mixing"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConfigurationError(f"solver {key} must be a number, but got {value!r}")
            if not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(f"solver {key} must be finite and >= 0, but got {value}")
            object.__setattr__(self, key, float(value))
        if not 0 < self.mixing <= 1:
            raise ConfigurationError(f"solver mixing must be in (0, 1], but got {self.mixing}")
        unused = [key for key in self._extras() if key not in _USED[self.name]]
        if unused:
            raise ConfigurationError(f"solver {self.name} does not use {', '.join(unused)}")
        object.__setattr__(self, "exits", _checked_exits(self))

    @property
    def plain(self) -> SolverSpec:
        """The same without exits: all steps for every row."""
        return dataclasses.replace(self, exits=())

    @classmethod
    def parse(cls, text: str | SolverSpec, *, within: str = "") -> SolverSpec:
        """Read ``name:max_steps[:tol][,key=value ...]``; a `SolverSpec` is returned unchanged.

        Args:
            text: The solver.
            within: What it is for, where that has no logits to look at: exits are then refused.

        Raises:
            UnknownNameError: The name or a key is unknown.
            ConfigurationError: The string does not have this form, or a value is out of range.
        """
        spec = text if isinstance(text, SolverSpec) else cls._read(text)
        if within and spec.exits:
            raise ConfigurationError(
                f"{within} takes no exits, but got {spec}; they belong to a reference classifier"
            )
        return spec

    @classmethod
    def _read(cls, text: str) -> SolverSpec:
        if not isinstance(text, str):
            raise ConfigurationError(f"a solver must be a string, but got {text!r}")
        head, *extras = (part.strip() for part in text.split(","))
        name, *numbers = (part.strip() for part in head.split(":"))
        if name not in DEFAULT_MEMORY:
            raise unknown_name("solver", name, DEFAULT_MEMORY)
        if not 1 <= len(numbers) <= 2:
            raise ConfigurationError(
                f"a solver must read name:steps or name:steps:tol, but got {text!r}"
            )
        values: dict[str, Any] = {"max_steps": _number(int, numbers[0], text)}
        if len(numbers) == 2:
            values["tol"] = _number(float, numbers[1], text)
        for extra in extras:
            key, _, value = (part.strip() for part in extra.partition("="))
            if key not in _EXTRAS:
                raise unknown_name("solver option", key, _EXTRAS)
            if key in values:
                raise ConfigurationError(f"solver option {key} is given twice in {text!r}")
            values[key] = _READ[key](value, text)
        return cls(name, **values)

    def __str__(self) -> str:
        tol = f":{self.tol:g}" if float(f"{self.tol:g}") == self.tol else f":{self.tol!r}"
        extras = "".join(f",{key}={_written(value)}" for key, value in self._extras().items())
        return f"{self.name}:{self.max_steps}{tol if self.tol else ''}{extras}"

    def _extras(self) -> dict[str, Any]:
        """Return the options that differ from this solver's defaults."""
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        defaults["memory"] = DEFAULT_MEMORY[self.name]
        return {k: getattr(self, k) for k in _EXTRAS if getattr(self, k) != defaults[k]}


def _checked_exits(spec: SolverSpec) -> tuple[Exit, ...]:
    """Return the exits as whole numbers of steps and finite leads, or raise."""
    try:
        exits = tuple((steps, float(lead)) for steps, lead in spec.exits)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"solver exits must be pairs of steps and a lead, but got {spec.exits!r}"
        ) from None
    steps = [step for step, _ in exits]
    if any(type(step) is not int for step in steps) or steps != sorted({0, *steps})[1:]:
        raise ConfigurationError(f"exits must be at ascending numbers of steps, but got {steps}")
    if steps and steps[-1] >= spec.max_steps:
        raise ConfigurationError(
            f"exits must come before the last of {spec.max_steps} steps, but got one at {steps[-1]}"
        )
    if not all(math.isfinite(lead) and lead >= 0 for _, lead in exits):
        raise ConfigurationError(f"leads of exits must be finite and >= 0, but got {exits}")
    if exits and spec.tol > 0:
        raise ConfigurationError("a solver has a tolerance or exits, not both")
    return exits


def _read_exits(value: str, whole: str) -> tuple[Exit, ...]:
    exits = []
    for part in value.split("+"):
        steps, at, lead = (piece.strip() for piece in part.partition("@"))
        if not at:
            raise ConfigurationError(
                f"exits must read STEPS@LEAD+STEPS@LEAD, but got {value!r} in the solver {whole!r}"
            )
        exits.append((int(_number(int, steps, whole)), float(_number(float, lead, whole))))
    return tuple(exits)


def _written(value: float | tuple[Exit, ...]) -> str:
    if not isinstance(value, tuple):
        return repr(value)
    return "+".join(f"{steps}@{lead!r}" for steps, lead in value)


def _number(kind: type, text: str, whole: str) -> int | float:
    """Return `text` as `kind`, or raise naming the solver string it came from."""
    try:
        return kind(text)
    except ValueError:
        word = "an integer" if kind is int else "a number"
        raise ConfigurationError(f"{text!r} is not {word} in the solver {whole!r}") from None


_READ: dict[str, Callable[[str, str], Any]] = {
    "memory": partial(_number, int),
    "ridge": partial(_number, float),
    "mixing": partial(_number, float),
    "exits": _read_exits,
}
"""How the value of each option is read, given the whole string for an error."""
