"""How many workers a run has, what each may use, and how its work is cut."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from deqcert.errors import ConfigurationError
from deqcert.smoothing.noise import BLOCK


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Settings of a runner. None of them changes a record, except that a time limit gives up.

    Attributes:
        count: Workers, >= 1. None: the local runner works in this very process; Ray takes as many
            as fit into the cluster, and more when it grows.
        threads: Threads of each worker, >= 1. None: the cores of this machine shared equally, so
            that workers do not fight for them, and at most ``OMP_NUM_THREADS``; in this very
            process what PyTorch uses; 1 with Ray.
        gpus: GPUs of each worker: 1, a fraction of one that several share, or 0. None: 1 where
            the certifier is on a GPU, else 0.
        address: Address of a Ray cluster, such as ``auto`` or ``ray://head:10001``. None starts
            one on this machine for the run, and stops it afterwards.
        time_limit: Seconds of work that one image may take, > 0; the image is then recorded as an
            abstention, with its reason. Stages that several workers share add up. None: no limit.
        block: Draws that are one piece of work, >= 16: images of more draws are cut into so large
            blocks of draws, or of whole chains, for several workers. None: images stay whole.

    Raises:
        ConfigurationError: A number out of range.
    """

    count: int | None = None
    threads: int | None = None
    gpus: float | None = None
    address: str | None = None
    time_limit: float | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("threads", 1), ("block", BLOCK)):
            _require_whole(name, getattr(self, name), least)
        if self.gpus is not None and not 0 <= self.gpus <= 1:
            raise ConfigurationError(
                "gpus per worker must be 1, a fraction of one or 0, since a worker computes on one "
                f"device, but got {self.gpus}"
            )
        limit = self.time_limit
        if limit is not None and not (math.isfinite(limit) and limit > 0):
            raise ConfigurationError(
                f"the time limit must be a finite number of seconds > 0, but got {limit}"
            )

    def threads_of(self, workers: int) -> int:
        """Return the threads of each of so many workers on this machine."""
        said = os.environ.get("OMP_NUM_THREADS", "")
        most = int(said) if said.isdecimal() and int(said) > 0 else usable_cores()
        return self.threads or max(1, min(most, usable_cores() // workers))

    def gpus_on(self, device: str) -> float:
        """Return the GPUs of each worker for a certifier on `device`.

        Raises:
            ConfigurationError: GPUs for a certifier on the CPU, none for one on a GPU, or a GPU
                by its number: each worker sees its own as the first.
        """
        on_gpu = device.startswith("cuda")
        gpus = (1.0 if on_gpu else 0.0) if self.gpus is None else float(self.gpus)
        if on_gpu != (gpus > 0):
            wanted = "on a GPU (device cuda)" if gpus > 0 else "on the CPU"
            raise ConfigurationError(
                f"workers of {gpus:g} GPUs need a certifier {wanted}, but this one is on {device}"
            )
        if device not in ("cpu", "cuda", "cuda:0"):
            raise ConfigurationError(
                f"workers share out the GPUs themselves: use device cuda instead of {device}"
            )
        return gpus


def usable_cores() -> int:
    """Return the cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _require_whole(name: str, value: Any, least: int) -> None:
    if value is not None and (type(value) is not int or value < least):
        what = {"count": "the number of workers", "threads": "threads per worker"}.get(name, name)
        raise ConfigurationError(f"{what} must be an integer >= {least}, but got {value!r}")
