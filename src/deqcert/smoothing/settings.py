"""Everything that decides a certificate besides model, image and noise: names, ranges, defaults."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deqcert.errors import ConfigurationError, unknown_name
from deqcert.smoothing.methods import METHODS
from deqcert.smoothing.starts import STARTS
from deqcert.solvers import SolverSpec
from deqcert.stats import check_feasible
from deqcert.stats.feasibility import checked_audit

_LEAST, _MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a certificate besides model, image and noise (stream and seed).

    These are the names of the `Certifier` arguments, of the command line's options and of the run
    folder's configuration; values are plain JSON types.
    """

    sigma: float
    n0: int
    n: int
    alpha: float
    method: str
    reference: str
    serial: str
    warmup: str
    start: str
    chains: int
    audit: int | float | str
    dtype: str

    def __post_init__(self) -> None:
        if not (np.isfinite(self.sigma) and self.sigma > 0):
            raise ConfigurationError(f"sigma must be finite and > 0, but got {self.sigma}")
        if not _LEAST <= self.sigma <= _MOST:
            # Rounded to zero it would certify without any noise.
            raise ConfigurationError(
                f"sigma must lie in the range of float32, as noise does, but got {self.sigma}"
            )
        if not 0 < self.alpha < 1:
            raise ConfigurationError(f"alpha must lie in (0, 1), but got {self.alpha}")
        for name in ("n0", "n", "chains"):
            # NumPy's integers are no JSON.
            object.__setattr__(self, name, check_count(name, getattr(self, name)))
        if isinstance(self.audit, np.integer):
            object.__setattr__(self, "audit", int(self.audit))
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)
        if self.start not in STARTS:
            raise unknown_name("start", self.start, STARTS)
        for name in ("serial", "warmup"):
            SolverSpec.parse(getattr(self, name), within=name)
        if self.method == "proved" and self.dtype == "bfloat16":
            raise ConfigurationError(
                "method 'proved' is about the exact image, which bfloat16 would round; take "
                "float32 or float64"
            )
        if self.method in ("standard", "proved"):
            check_feasible(n=self.n, alpha=self.alpha, audit=None)
        else:
            # None would ask for no audit, which these methods cannot do without.
            check_feasible(n=self.n, alpha=self.alpha, audit=checked_audit(self.audit, self.n))


def check_count(name: str, value: object) -> int:
    """Return `value` if it is an integer >= 1.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ConfigurationError(f"{name} must be an integer >= 1, but got {value!r}")
    return int(value)


def check_number(name: str, value: object) -> float:
    """Return `value` as a float.

    Raises:
        ConfigurationError: It is no number.
    """
    try:
        return float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name} must be a number, but got {value!r}") from error


def default_serial(reference: SolverSpec, start: str) -> str:
    """Return the warm solver for a reference: three Anderson steps as published, or one step.

    Three steps save nothing where the reference takes about as many, and from a linear prediction
    one step at a time goes as far as a draw needs.
    """
    return "picard:1" if start == "linear" or reference.max_steps <= 5 else "anderson:3"


def default_warmup(reference: SolverSpec) -> str:
    """Return the solver of the first serialized batch: as published, never above the reference."""
    return str(reference.plain) if reference.max_steps < 10 else "anderson:10"
