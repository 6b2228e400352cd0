"""Certify a data set into a run folder: resumable, one record per image, one writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch

from deqcert.data import Dataset
from deqcert.errors import ConfigurationError, unknown_name
from deqcert.models import EquilibriumModel
from deqcert.results import RunFolder, is_run_folder
from deqcert.runners.base import AnyCertifier, Runner
from deqcert.runners.environment import model_facts, software
from deqcert.runners.local import LocalRunner
from deqcert.smoothing import NOISE_STREAM, Certifier, fresh_seed
from deqcert.smoothing.noise import check_seed
from deqcert.smoothing.sampling import Progress, no_progress

RUNNERS: dict[str, Callable[[], Runner]] = {"local": LocalRunner}


@dataclass(frozen=True)
class Watch:
    """What a run calls while it works; the defaults stay silent.

    Attributes:
        started: Called once with (images already done, images in all).
        draws: Called as ``draws(stage, done, total)`` within an image, where there are draws.
        finished: Called with each new record.
    """

    started: Callable[[int, int], None] = lambda done, total: None
    draws: Progress = no_progress
    finished: Callable[[Mapping[str, Any]], None] = lambda record: None


def certify_dataset(
    certifier: AnyCertifier,
    data: Dataset,
    *,
    out: str | PathLike[str],
    skip: int = 1,
    limit: int | None = None,
    seed: int | None = None,
    runner: str = "local",
    watch: Watch | None = None,
) -> RunFolder:
    """Certify every `skip`-th image of `data` into the run folder `out`, or go on where it stopped.

    A record is on disk before the next image starts (deterministic methods: the next small batch);
    a stopped run loses at most the image or batch it was at, and resuming gives the records of an
    uninterrupted run.

    Args:
        certifier: A `Certifier`, or a `LipschitzCertifier` or `IntervalCertifier` of
            `deqcert.deterministic`.
        data: The images.
        out: The run folder: missing, empty, or a run of the same configuration.
        skip: Certify the images 0, skip, 2 skip, ...; >= 1.
        limit: Certify at most so many images in all; None means no limit. A later call may
            raise it.
        seed: Seed of the noise; None takes the folder's seed, or for a new one the operating
            system's, and records it. Deterministic methods have none.
        runner: Name of the runner, ``"local"``.
        watch: Callbacks for progress.

    Returns:
        The run folder, open to read.

    Raises:
        ConfigurationError: Model and data do not fit, a number is out of range, or a seed was given
            where nothing is drawn.
        RunFolderError: The folder holds something else, is in use, or cannot be written.
    """
    watch = watch or Watch()
    _check(certifier, data, skip, limit)
    if runner not in RUNNERS:
        raise unknown_name("runner", runner, RUNNERS)
    configuration = {
        **certifier.configuration,
        "data": data.name,
        "split": data.split,
        "data_digest": data.digest,
        "class_names": list(data.class_names),
        "skip": skip,
        **_noise(certifier, out, seed),
    }
    with RunFolder.create_or_resume(out, configuration, _environment(certifier, runner)) as run:
        indices = list(range(0, len(data), skip))[:limit]
        missing = [index for index in indices if index not in run.done]
        watch.started(len(indices) - len(missing), len(indices))
        certified = RUNNERS[runner]().certify(
            certifier, data, missing, seed=configuration.get("seed"), progress=watch.draws
        )
        for index, certificate in certified:
            watch.finished(run.append(certificate, data[index].label))
    return RunFolder.open(out)


def _check(certifier: AnyCertifier, data: Dataset, skip: int, limit: int | None) -> None:
    if skip < 1:
        raise ConfigurationError(f"skip must be >= 1, but got {skip}")
    if limit is not None and limit < 1:
        raise ConfigurationError(f"the number of images must be >= 1, but got {limit}")
    model = _model(certifier)
    if tuple(model.input_shape) != tuple(data.input_shape):
        raise ConfigurationError(
            f"the model takes images of shape {model.input_shape}, but {data.name} has "
            f"{tuple(data.input_shape)}"
        )
    if model.num_classes != data.num_classes:
        raise ConfigurationError(
            f"the model has {model.num_classes} classes, but {data.name} has {data.num_classes}"
        )


def _model(certifier: AnyCertifier) -> EquilibriumModel:
    """Return the certifier's inference copy of its model."""
    return certifier.classifier.model if isinstance(certifier, Certifier) else certifier.model


def _noise(
    certifier: AnyCertifier, out: str | PathLike[str], seed: int | None
) -> dict[str, str | int]:
    """Return stream and seed of the noise; nothing for methods that draw none."""
    if isinstance(certifier, Certifier):
        return {"noise": NOISE_STREAM, "seed": _seed(out, seed)}
    if seed is not None:
        raise ConfigurationError("deterministic certificates draw nothing, so they take no seed")
    return {}


def _seed(out: str | PathLike[str], seed: int | None) -> int:
    if seed is not None:
        return check_seed(seed)
    if is_run_folder(out):
        stored = RunFolder.open(out).configuration.get("seed")
        # A run without noise is of another configuration, which opening it to write will say.
        return fresh_seed() if stored is None else int(stored)
    return fresh_seed()


def _environment(certifier: AnyCertifier, runner: str) -> dict[str, Any]:
    """Return what may differ between the sessions of one run without changing its records."""
    smoothed = isinstance(certifier, Certifier)
    return {
        **software(),
        **model_facts(_model(certifier), certifier.configuration["weights_digest"]),
        "device": str(certifier.classifier.device) if smoothed else "cpu",
        "threads": torch.get_num_threads(),
        "batch_size": certifier.batch_size if smoothed else certifier.subject.batch_size,
        "runner": runner,
    }
