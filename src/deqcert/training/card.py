"""The card of trained weights: what made them, and how good they are under noise."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

import deqcert
from deqcert.data import Dataset
from deqcert.errors import ConfigurationError
from deqcert.models import EquilibriumModel, inference_copy, weights_digest
from deqcert.smoothing.noise import keyed_generator
from deqcert.training.checkpoint import Progress
from deqcert.training.evaluate import Evaluation, evaluate
from deqcert.training.run import TrainingRun
from deqcert.training.spectrum import estimate_spectral_radius

_SPECTRUM_IMAGES = 32


def make_card(
    run: TrainingRun,
    settings: Mapping[str, Any],
    progress: Progress,
    *,
    command: str | None,
    test: Dataset | None,
) -> dict[str, Any]:
    """Return the facts about the finished weights of a run."""
    config = run.config
    name = settings["model"]["name"]
    call = f"deqcert.train({name!r}, data={run.data.name!r}, sigma={config.sigma})"
    card: dict[str, Any] = {
        "sigma": config.sigma,
        "command": command or call,
        "seed": config.seed,
        "seconds": round(progress.seconds, 1),
        "processor_seconds": round(progress.processor_seconds, 1),
        "epochs": progress.epochs,
        "steps": progress.steps,
        "parameters": sum(p.numel() for p in run.average.parameters()),
        "threads": torch.get_num_threads(),
        "versions": {
            "deqcert": deqcert.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        **settings,
        "weights": weights_digest(run.average),
        "spectral_radius_estimate": _spectrum(run),
    }
    if len(run.split.held_out):
        card["held_out"] = _evaluate_held_out(run, config.card_copies).to_dict()
    if test is not None:
        require_fit(run.average, test)
        found = evaluate(
            run.average,
            test,
            sigma=config.sigma,
            indices=range(0, len(test), config.card_every),
            copies=config.card_copies,
            seed=config.seed,
        )
        card["test"] = {"digest": test.digest, "every": config.card_every, **found.to_dict()}
    return card


def validation(run: TrainingRun) -> dict[str, Any]:
    """Return the held-out record of an epoch, or nothing without held-out images."""
    if len(run.split.held_out) == 0:
        return {}
    found = _evaluate_held_out(run, run.config.validation_copies)
    return {"validation": found.to_dict()}


def require_fit(model: EquilibriumModel, data: Dataset) -> None:
    """Raise ConfigurationError unless the model takes these images and classes."""
    for what, ours, theirs in (
        ("images of shape", model.input_shape, tuple(data.input_shape)),
        ("classes:", model.num_classes, data.num_classes),
    ):
        if ours != theirs:
            raise ConfigurationError(f"the model takes {what} {ours}, but {data.name} has {theirs}")


def _evaluate_held_out(run: TrainingRun, copies: int) -> Evaluation:
    return evaluate(
        run.average,
        run.data,
        sigma=run.config.sigma,
        indices=run.split.held_out,
        copies=copies,
        seed=run.config.seed,
    )


def _spectrum(run: TrainingRun) -> dict[str, Any]:
    """Return the estimate at noisy images, held out where there are any."""
    rows = run.split.held_out if len(run.split.held_out) else run.split.train
    images, _ = run.data.batch(rows[:_SPECTRUM_IMAGES])
    generator = keyed_generator(run.config.seed, 0, "evaluation-spectrum")
    noise = generator.standard_normal(tuple(images.shape), dtype=np.float32)
    model = inference_copy(run.average)
    device = next(model.parameters()).device
    noisy = (images + run.config.sigma * torch.from_numpy(noise)).to(device)
    found = estimate_spectral_radius(model, noisy)
    return {
        "method": "power iteration at the fixed point; an estimate, not a bound",
        "images": len(found),
        "median": float(f"{float(found.median()):.4g}"),
        "max": float(f"{float(found.max()):.4g}"),
    }
