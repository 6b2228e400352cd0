"""Everything that can go wrong on purpose: one family, each with one clear line.

The command line turns a `DeqcertError` into that line and exit code 2. Warnings about numbers that
are usable but deserve a look are `NumericalWarning`; those about time alone `PerformanceWarning`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DeqcertError(Exception):
    """Base class of every error this package raises deliberately."""


class ConfigurationError(DeqcertError, ValueError):
    """A setting is outside what it may be, or two settings contradict each other."""


class UnknownNameError(DeqcertError, LookupError):
    """A model, data set, solver or method name that does not exist."""


class InputError(DeqcertError, ValueError):
    """An image or label of the wrong shape or type, outside [0, 1], or not finite."""


class DataError(DeqcertError):
    """Data files that are missing, damaged, or not what they claim to be."""


class CheckpointError(DeqcertError):
    """A checkpoint that is missing, truncated, foreign, or of another architecture."""


class RunFolderError(DeqcertError):
    """A run folder of another configuration, in use, damaged, or not writable."""


class WorkerError(DeqcertError):
    """Workers of a run that cannot be started, are not alike, or are lost again and again."""


class TrainingError(DeqcertError):
    """Training that cannot go on: a loss or gradient that is not finite, or that has diverged."""


class TrainingPaused(DeqcertError):  # noqa: N818 (nothing is wrong)
    """Training stopped because its time was up; all is saved, the same call goes on."""


class NumericalWarning(UserWarning):
    """A result is usable, but its numbers deserve a look."""


class PerformanceWarning(UserWarning):
    """The result is what it would have been, but took longer than it could have."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Return the error for an unknown `name`, listing the nearest known names first.

    >>> str(unknown_name("solver", "andersen", ["picard", "anderson", "broyden"]))
    "unknown solver 'andersen'; did you mean 'anderson'? known: anderson, broyden, picard"
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f" did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return UnknownNameError(f"unknown {kind} {name!r};{hint} known: {', '.join(names)}")
