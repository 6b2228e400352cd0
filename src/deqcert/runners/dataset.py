"""Certify a data set into a run folder: resumable, one record per image, one writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from deqcert.data import Dataset
from deqcert.data.dataset import check_dataset
from deqcert.errors import ConfigurationError, unknown_name
from deqcert.models import EquilibriumModel
from deqcert.results import RunFolder, is_run_folder
from deqcert.results.progress import ProgressFile
from deqcert.results.run_folder import read_run_json
from deqcert.runners.base import AnyCertifier, Runner, Work, Working
from deqcert.runners.environment import model_facts, software
from deqcert.runners.local import LocalRunner, device_of
from deqcert.runners.thumbnails import with_thumbnails
from deqcert.runners.workers import Workers
from deqcert.smoothing import Certifier, fresh_seed
from deqcert.smoothing.noise import check_seed
from deqcert.smoothing.settings import check_count


def _ray(workers: Workers) -> Runner:
    from deqcert.runners.ray import RayRunner  # an extra, and slow to import

    return RayRunner(workers)


RUNNERS: dict[str, Callable[[Workers], Runner]] = {"local": LocalRunner, "ray": _ray}


@dataclass(frozen=True)
class Watch:
    """What a run calls while it works; the defaults stay silent.

    Attributes:
        started: Called once with (images already done, images in all).
        working: Called with what a worker is at: see `base.Working`.
        finished: Called with each new record.
    """

    started: Callable[[int, int], None] = lambda done, total: None
    working: Working = lambda worker, index, stage, done, total: None
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
    workers: Workers | int | None = None,
    watch: Watch | None = None,
) -> RunFolder:
    """Certify every `skip`-th image of `data` into the run folder `out`, or go on where it stopped.

    A record is on disk before the next is written; a stopped run loses at most the images that were
    begun (one, and with several workers two each), and resuming gives the records of an
    uninterrupted run. With several workers they come in the order in which they are finished.

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
        runner: ``"local"`` (this machine) or ``"ray"`` (``pip install deqcert[ray]``).
        workers: How many workers, and what each may use; a number is that many, None is one, in
            this process (Ray: as many as fit). See docs/running.md.
        watch: Callbacks for progress.

    Returns:
        The run folder, open to read.

    Raises:
        ConfigurationError: Model and data do not fit, a number is out of range, or a seed was given
            where nothing is drawn.
        RunFolderError: The folder holds something else, is in use, or cannot be written.
        WorkerError: Workers cannot be started, or are lost again and again.
    """
    watch = watch or Watch()
    _check(certifier, data, skip, limit)
    hands = _runner(certifier, runner, workers)
    configuration = {
        **certifier.configuration,
        "data": data.name,
        "split": data.split,
        "data_digest": data.digest,
        "class_names": list(data.class_names),
        "skip": skip,
        **_noise(certifier, out, seed),
    }
    with RunFolder.create_or_resume(out, configuration, _environment(certifier, hands)) as run:
        indices = range(0, len(data), skip)[:limit]
        done = sum(index in run.done for index in indices)
        missing = (index for index in indices if index not in run.done)
        watch.started(done, len(indices))
        work = Work(certifier=certifier, data=data, indices=missing, seed=configuration.get("seed"))
        file = ProgressFile(run.path, done=done, total=len(indices))
        with closing(file), closing(hands.certify(work, _both(file, watch))) as certified:
            for certificate in with_thumbnails(certified, data, run):
                watch.finished(run.append(certificate, int(data.labels[certificate.index])))
                file.finished_image()
        return run


def _check(certifier: AnyCertifier, data: Dataset, skip: int, limit: int | None) -> None:
    check_dataset(data)
    check_count("skip", skip)
    if limit is not None:
        check_count("the number of images", limit)
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


def _noise(certifier: AnyCertifier, out: str | PathLike[str], seed: int | None) -> dict[str, int]:
    """Return the seed of the noise; nothing for methods that draw none."""
    if isinstance(certifier, Certifier):
        return {"seed": _seed(out, seed)}
    if seed is not None:
        raise ConfigurationError("deterministic certificates draw nothing, so they take no seed")
    return {}


def _seed(out: str | PathLike[str], seed: int | None) -> int:
    if seed is not None:
        return check_seed(seed)
    if is_run_folder(out):
        stored = read_run_json(Path(out))["configuration"].get("seed")
        # A run without noise is of another configuration, which opening it to write will say.
        return fresh_seed() if stored is None else int(stored)
    return fresh_seed()


def _environment(certifier: AnyCertifier, runner: Runner) -> dict[str, Any]:
    """Return what may differ from one start of a run to the next without changing its records."""
    smoothed = isinstance(certifier, Certifier)
    return {
        **software(),
        **model_facts(_model(certifier), certifier.configuration["weights_digest"]),
        "device": device_of(certifier),
        "batch_size": certifier.batch_size if smoothed else certifier.subject.batch_size,
        **runner.facts(certifier),
    }


def _runner(certifier: AnyCertifier, name: str, workers: Workers | int | None) -> Runner:
    """Return the runner of that name, if it fits the certifier.

    Raises:
        UnknownNameError: No such runner.
        ConfigurationError: Settings that do not fit.
    """
    if name not in RUNNERS:
        raise unknown_name("runner", name, RUNNERS)
    settings = workers if isinstance(workers, Workers) else Workers(count=workers)
    if settings.time_limit is not None and not isinstance(certifier, Certifier):
        raise ConfigurationError(
            "a time limit is for methods that draw noise; the others take a known number of steps"
        )
    return RUNNERS[name](settings)


def _both(file: ProgressFile, watch: Watch) -> Working:
    """Return what tells the folder and the caller what workers are at."""

    def working(worker: str, index: int | None, stage: str, done: int, total: int) -> None:
        if stage == "gone":
            file.gone(worker)
        else:
            file.work(worker, index, stage, done, total)
        watch.working(worker, index, stage, done, total)

    return working
