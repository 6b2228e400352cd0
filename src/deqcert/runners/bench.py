"""A worker's side: the certifier, loaded once, and tasks done with it."""

from __future__ import annotations

import pickle
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import deqcert
from deqcert.errors import NumericalWarning, WorkerError
from deqcert.runners.base import AnyCertifier
from deqcert.runners.tasks import Task
from deqcert.smoothing import Certifier

_EVERY = 0.2
"""Seconds that lie at least between two reports of progress."""


@dataclass(frozen=True)
class Answer:
    """What became of a task.

    Attributes:
        result: Its result; None where it failed.
        error: What it raised, or None.
        warned: Messages of the `NumericalWarning`s it gave.
    """

    result: Any
    error: Exception | None
    warned: tuple[str, ...]


class Bench:
    """The certifier of one worker.

    Args:
        certifier: The certifier, as `packed`.
        threads: Threads of PyTorch, >= 1.
    """

    def __init__(self, certifier: bytes, threads: int) -> None:
        self._threads = threads
        torch.set_num_threads(threads)
        self._warned: list[str] = []
        # In this process nobody reads warnings: those about numbers go to the caller.
        self._show, warnings.showwarning = warnings.showwarning, self._note_warning
        self.certifier: AnyCertifier = pickle.loads(certifier)
        self.facts = place_facts(self.certifier)

    def answer(self, task: Task, report: Callable[[str, int, int], None]) -> Answer:
        """Do a task; its errors are part of the answer."""
        torch.set_num_threads(self._threads)  # of this very thread, which may be another one
        result, error = None, None
        try:
            result = task.run(self.certifier, seldom(report))
        except Exception as raised:
            error = sendable(raised)
        warned, self._warned = tuple(self._warned), []
        return Answer(result, error, warned)

    def _note_warning(
        self, message: Warning | str, category: type[Warning], *where: Any, **how: Any
    ) -> None:
        if issubclass(category, NumericalWarning):
            self._warned.append(str(message))
        else:
            self._show(message, category, *where, **how)


def packed(certifier: AnyCertifier) -> bytes:
    """Return a certifier as it is sent to workers, models of scripts and notebooks included.

    Raises:
        WorkerError: Its model holds what cannot be sent, such as an open file.
    """
    import cloudpickle

    try:
        return cloudpickle.dumps(certifier)
    except Exception as error:
        raise WorkerError(f"the model cannot be sent to workers: {error}") from error


def sendable(error: Exception) -> Exception:
    """Return an error that survives being sent, with its own type where that can be."""
    lines = traceback.format_tb(error.__traceback__)
    if sys.version_info >= (3, 11):
        error.add_note("in a worker:\n" + "".join(lines))
    error.__cause__ = error.__context__ = None
    try:
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error)
    except Exception:
        where = " ".join("".join(lines[-1:]).split())
        return WorkerError(f"{type(error).__name__}: {error} ({where})")
    return error.with_traceback(None)


def seldom(report: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """Pass on reports of progress, but not more than people can read."""
    last = -_EVERY

    def passed(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _EVERY:
            last = now
            report(stage, done, total)

    return passed


def place_facts(certifier: AnyCertifier) -> dict[str, str]:
    """Return what decides the last bits of a number where this runs."""
    device = certifier.classifier.device if isinstance(certifier, Certifier) else "cpu"
    on_gpu = str(device).startswith("cuda")
    return {
        "deqcert": deqcert.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
    }


def require_alike(name: str, here: dict[str, str], there: dict[str, str]) -> None:
    """Refuse a worker whose numbers may differ in their last bits from those of the others.

    Raises:
        WorkerError: It is of another kind.
    """
    differences = [
        f"{key} {there.get(key)} instead of {value}"
        for key, value in here.items()
        if there.get(key) != value
    ]
    if differences:
        raise WorkerError(
            f"worker {name} is of another kind than this process ({', '.join(differences)}): "
            "records must not depend on which worker makes them, so use machines of one kind"
        )
