"""What two implementations certify in the same time, or the same image in which time."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import deqcert as dc
from deqcert.models import MDEQ, build
from deqcert.models.fast_part import FastPart
from deqcert.smoothing import NoiseSource, Sampler

_ALLOWED = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

FRESH = ":random"
"""Ends the name of an architecture that is to be measured with random weights."""


def use_threads(count: int) -> None:
    """Compute with `count` threads on as many processors, like processes started from now on.

    Held to its processors, one thread is one thread: what either side does in the background takes
    its time from the same processor.
    """
    torch.set_num_threads(count)
    if not _ALLOWED:
        return
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # one that has just ended
            os.sched_setaffinity(int(thread), _ALLOWED[:count])


def load(name: str) -> MDEQ:
    """Return a trained model, or ``ARCHITECTURE:random``.

    Fresh weights make an MDEQ's cell nearly constant. These random ones keep the size of what they
    are given, so that a solve has as much to do as with trained weights, and meets no tolerance.
    """
    if not name.endswith(FRESH):
        model = dc.load_model(name)
        assert isinstance(model, MDEQ)
        return model
    torch.manual_seed(0)
    model = build(name.removesuffix(FRESH))
    assert isinstance(model, MDEQ)
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    model.eval()
    return model


@dataclass(frozen=True, kw_only=True)
class Work:
    """One certificate by standard smoothing.

    Attributes:
        sigma: Noise level, pixel units.
        n0: Selection draws.
        n: Estimation draws.
        alpha: Failure probability.
        batch: Rows computed at once.
        steps: Anderson steps of a solve.
        seed: Seed of the noise.
    """

    sigma: float = 0.5
    n0: int = 100
    n: int = 10_000
    alpha: float = 0.001
    batch: int = 400
    steps: int = 30
    seed: int = 0

    @property
    def draws(self) -> int:
        """All draws, those of the selection too."""
        return self.n0 + self.n


def certifier(model: MDEQ, work: Work, **changes: Any) -> dc.Certifier:
    """Return our certifier for the same work."""
    settings: dict[str, Any] = {
        "sigma": work.sigma,
        "n0": work.n0,
        "n": work.n,
        "alpha": work.alpha,
        "method": "standard",
        "reference": f"anderson:{work.steps}",
        "batch_size": work.batch,
    }
    return dc.Certifier(model, **{**settings, **changes})


def certify(ours: dc.Certifier, image: Tensor, index: int, seed: int) -> dict[str, Any]:
    """Certify one image by ours; seconds are taken around the whole call."""
    started = time.perf_counter()
    found = ours.certify(image, seed=seed, index=index)
    return {
        "seconds": time.perf_counter() - started,
        "prediction": found.prediction,
        "radius": found.radius,
        "cell_evaluations": found.cell_evaluations,
        "counts": list(found.counts),
    }


def sampler(ours: dc.Certifier, image: Tensor, index: int, seed: int) -> Sampler:
    """Return the draws that `ours` certifies this image with."""
    noise = NoiseSource(seed=seed, index=index, shape=tuple(image.shape), sigma=ours.settings.sigma)
    return Sampler(ours.classifier, image, noise, batch_size=ours.batch_size)


def agreement(ours: dc.Certifier, images: Tensor, theirs: list[int]) -> dict[str, Any]:
    """Return how many labels of these noisy images differ, and how clear ours were there."""
    found, _ = ours.classifier.labelled(images)
    differ = found.label != torch.tensor(theirs).numpy()
    leads = sorted(float(lead) for lead in found.lead[differ])
    return {"draws": len(images), "differ": int(differ.sum()), "leads": leads}


def computed_by(ours: dc.Certifier) -> dict[str, Any]:
    """Return what computes: the cell's class, other fast parts in use, and recorded solves."""
    model = ours.classifier.model
    cell = getattr(model, "f", None)
    if isinstance(cell, FastPart) and not cell.active:
        cell = cell.plain
    fast = [part for part in model.modules() if isinstance(part, FastPart) and part.active]
    recorded = getattr(model, "recorded_solves", None)
    return {
        "cell": type(cell).__name__,
        "fast_ends": [type(part).__name__ for part in fast if part is not cell],
        "recordings": 0 if recorded is None else len(recorded),
    }
