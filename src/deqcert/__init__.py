"""deqcert: certified robustness for deep equilibrium models, by serialized random smoothing.

>>> import deqcert as dc
>>> model = dc.load_model("mdeq-digits")
>>> data = dc.load_data("digits", split="test")
>>> certifier = dc.Certifier(model, sigma=0.5, n=1000)
>>> certificate = certifier.certify(data[0].image, seed=0)

Names load on first use, so that ``import deqcert`` costs nothing and brings in no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deqcert import models, solvers, stats
    from deqcert.certificate import Certificate
    from deqcert.checks import verify
    from deqcert.data import Example, load_data
    from deqcert.errors import (
        CheckpointError,
        ConfigurationError,
        DataError,
        DeqcertError,
        InputError,
        NumericalWarning,
        PerformanceWarning,
        RunFolderError,
        TrainingError,
        TrainingPaused,
        UnknownNameError,
        WorkerError,
    )
    from deqcert.models import EquilibriumModel, load_model
    from deqcert.results import report
    from deqcert.runners import certify_dataset
    from deqcert.smoothing import Certifier
    from deqcert.solvers import SolverSpec
    from deqcert.training import train

__version__ = "0.1.0"

_HOMES = {
    "Certificate": "deqcert.certificate",
    "Certifier": "deqcert.smoothing",
    "CheckpointError": "deqcert.errors",
    "ConfigurationError": "deqcert.errors",
    "DataError": "deqcert.errors",
    "DeqcertError": "deqcert.errors",
    "EquilibriumModel": "deqcert.models",
    "Example": "deqcert.data",
    "InputError": "deqcert.errors",
    "NumericalWarning": "deqcert.errors",
    "PerformanceWarning": "deqcert.errors",
    "RunFolderError": "deqcert.errors",
    "SolverSpec": "deqcert.solvers",
    "TrainingError": "deqcert.errors",
    "TrainingPaused": "deqcert.errors",
    "UnknownNameError": "deqcert.errors",
    "WorkerError": "deqcert.errors",
    "certify_dataset": "deqcert.runners",
    "load_data": "deqcert.data",
    "load_model": "deqcert.models",
    "report": "deqcert.results",
    "train": "deqcert.training",
    "verify": "deqcert.checks",
}
_NAMESPACES = ("models", "solvers", "stats")

__all__ = [
    "Certificate",
    "Certifier",
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "DeqcertError",
    "EquilibriumModel",
    "Example",
    "InputError",
    "NumericalWarning",
    "PerformanceWarning",
    "RunFolderError",
    "SolverSpec",
    "TrainingError",
    "TrainingPaused",
    "UnknownNameError",
    "WorkerError",
    "__version__",
    "certify_dataset",
    "load_data",
    "load_model",
    "models",
    "report",
    "solvers",
    "stats",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return importlib.import_module(f"deqcert.{name}")
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value  # resolved once
        return value
    raise AttributeError(f"module 'deqcert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
