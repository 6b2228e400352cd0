"""Which solver runs, for how long, and when a row may stop: a value that prints and parses."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from deqcert.errors import ConfigurationError, unknown_name

DEFAULT_MEMORY = {"picard": 1, "anderson": 6, "broyden": 30}
"""Past iterates each solver keeps unless told otherwise; its keys are the solver names."""

_EXTRAS = {"memory": int, "ridge": float, "mixing": float}
_USED = {"picard": ("mixing",), "anderson": ("memory", "ridge", "mixing")}
_USED["broyden"] = ("memory", "mixing")


@dataclass(frozen=True)
class SolverSpec:
    """Settings of one fixed-point solve; equal settings are equal values with one string form.

    >>> SolverSpec.parse("anderson:30:1e-3")
    SolverSpec(name='anderson', max_steps=30, tol=0.001, memory=6, ridge=0.0001, mixing=1.0)
    >>> str(SolverSpec("anderson", 30, mixing=0.8))
    'anderson:30,mixing=0.8'

    Attributes:
        name: ``picard``, ``anderson`` or ``broyden``.
        max_steps: Cell evaluations per row at most, >= 1; exactly that many where tol is 0.
        tol: Relative residual at which a row stops, >= 0; 0 never stops early.
        memory: Past iterates kept, >= 1: Anderson's window (pairs of iterate and value, default
            6), or the steps after which Broyden restarts (default 30). 0 stands for the default.
        ridge: Absolute term added to the diagonal of Anderson's Gram matrix, >= 0.
        mixing: Damping of every step, in (0, 1]; 1 takes full steps.

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

    @classmethod
    def parse(cls, text: str | SolverSpec) -> SolverSpec:
        """Read ``name:max_steps[:tol][,key=value ...]``; a `SolverSpec` is returned unchanged.

        Raises:
            UnknownNameError: The name or a key is unknown.
            ConfigurationError: The string does not have this form, or a value is out of range.
        """
        if isinstance(text, SolverSpec):
            return text
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
        values: dict[str, int | float] = {"max_steps": _number(int, numbers[0], text)}
        if len(numbers) == 2:
            values["tol"] = _number(float, numbers[1], text)
        for extra in extras:
            key, _, value = (part.strip() for part in extra.partition("="))
            if key not in _EXTRAS:
                raise unknown_name("solver option", key, _EXTRAS)
            if key in values:
                raise ConfigurationError(f"solver option {key} is given twice in {text!r}")
            values[key] = _number(_EXTRAS[key], value, text)
        return cls(name, **values)  # pyright: ignore[reportArgumentType]

    def __str__(self) -> str:
        tol = f":{self.tol:g}" if float(f"{self.tol:g}") == self.tol else f":{self.tol!r}"
        extras = "".join(f",{key}={value!r}" for key, value in self._extras().items())
        return f"{self.name}:{self.max_steps}{tol if self.tol else ''}{extras}"

    def _extras(self) -> dict[str, int | float]:
        """Return the options that differ from this solver's defaults."""
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        defaults["memory"] = DEFAULT_MEMORY[self.name]
        return {k: getattr(self, k) for k in _EXTRAS if getattr(self, k) != defaults[k]}


def _number(kind: type, text: str, whole: str) -> int | float:
    """Return `text` as `kind`, or raise naming the solver string it came from."""
    try:
        return kind(text)
    except ValueError:
        word = "an integer" if kind is int else "a number"
        raise ConfigurationError(f"{text!r} is not {word} in the solver {whole!r}") from None
