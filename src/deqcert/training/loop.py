"""`train`: from a model and a data set to a folder with trained weights, resumable at any time."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

import deqcert
from deqcert.data import Dataset
from deqcert.errors import ConfigurationError, RunFolderError
from deqcert.models import EquilibriumModel, load_model, load_weights, save_model, weights_digest
from deqcert.smoothing.noise import keyed_generator
from deqcert.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from deqcert.training.config import TrainConfig
from deqcert.training.evaluate import Evaluation, evaluate
from deqcert.training.folder import LOCK_NAME, TrainingFolder, require_usable
from deqcert.training.progress import TrainWatch
from deqcert.training.run import TrainingRun


@dataclass(frozen=True)
class TrainResult:
    """What a training run leaves.

    Attributes:
        model: The trained model (the average of the weights), in eval mode, with its card.
        path: Its checkpoint, a file for `load_model`.
        card: Facts about the weights: command, seed, seconds, accuracies under noise by steps,
            residuals, steps to converge, versions.
        log: One record per epoch.
    """

    model: EquilibriumModel
    path: Path
    card: dict[str, Any]
    log: list[dict[str, Any]]


def train(
    model: EquilibriumModel | str,
    data: Dataset,
    *,
    out: str | PathLike[str],
    config: TrainConfig,
    test: Dataset | None = None,
    command: str | None = None,
    watch: TrainWatch | None = None,
    device: torch.device | str | None = None,
) -> TrainResult:
    """Train a model under Gaussian noise into the folder `out`, or go on where it stopped.

    Every epoch ends with a checkpoint. A run that was stopped, by kill -9 too, gives the same
    weights to the last bit as one that was not, on the same machine with as many threads.

    Args:
        model: A model, of which a copy is trained; or the name of an architecture, which is built
            with fresh weights drawn from the seed.
        data: The training data.
        out: The folder: missing, empty, or of a run with the same settings. It gets
            ``training.json`` (the settings), ``log.jsonl``, ``checkpoint.safetensors`` and in the
            end ``model.safetensors``, for `load_model`, and ``card.json``.
        config: The settings.
        test: Data the finished model is evaluated on for its card; nothing is chosen by it.
        command: The command to name in the card; None means the call itself, in brief.
        watch: Callbacks for progress.
        device: Where to train; None means where the model is.

    Raises:
        ConfigurationError: Model, data and settings do not fit each other.
        UnknownNameError: No such architecture.
        RunFolderError: The folder holds something else or other settings, or is in use.
        CheckpointError: The checkpoint is damaged, or the disk refused one.
        TrainingError: The loss is not finite or has diverged; the last checkpoint is kept.
    """
    watch = watch or TrainWatch()
    name = model if isinstance(model, str) else type(model).__name__
    fresh = _fresh(model, config).to(device)
    _check(fresh, data)
    settings = {
        "config": config.to_dict(),
        "data": {"name": data.name, "split": data.split, "digest": data.digest},
        "model": {"name": name, "start": weights_digest(fresh)},
    }
    path = Path(out)
    with _locked(path):
        folder = TrainingFolder(path, settings)
        run = TrainingRun(fresh, data, config)
        if not folder.model.exists():
            progress = _run_epochs(run, folder, watch)
            card = _card(run, settings, progress, command, test)
            folder.write_card(card)
            save_model(run.average, folder.model, card=card)  # last: it marks the run as finished
        load_weights(run.average, folder.model)
        return TrainResult(run.average, folder.model, run.average.card or {}, folder.read_log())


def _fresh(model: EquilibriumModel | str, config: TrainConfig) -> EquilibriumModel:
    if not isinstance(model, str):
        return copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(int(keyed_generator(config.seed, 0, "train-weights").integers(2**63)))
        return load_model(model, pretrained=False)


def _check(model: EquilibriumModel, data: Dataset) -> None:
    for what, ours, theirs in (
        ("images of shape", model.input_shape, tuple(data.input_shape)),
        ("classes:", model.num_classes, data.num_classes),
    ):
        if ours != theirs:
            raise ConfigurationError(f"the model takes {what} {ours}, but {data.name} has {theirs}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder for this process; created if missing."""
    require_usable(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with FileLock(path / LOCK_NAME, timeout=0):
            yield
    except Timeout:
        raise RunFolderError(f"{path} is in use by another training run") from None
    except OSError as error:
        raise RunFolderError(f"cannot use {path}: {error.strerror or error}") from error


def _run_epochs(run: TrainingRun, folder: TrainingFolder, watch: TrainWatch) -> Progress:
    """Run the epochs that are missing; each ends on disk before the next begins."""
    config = run.config
    progress = Progress()
    if folder.checkpoint.exists():
        progress = load_checkpoint(
            folder.checkpoint, model=run.model, average=run.average, optimizer=run.optimizer
        )
    folder.cut_log(progress.log_bytes)
    watch.started(progress.epochs, config.epochs, run.steps_per_epoch)
    for epoch in range(progress.epochs, config.epochs):
        began = time.perf_counter()
        means = run.epoch(epoch, watch.stepped)
        record = {"epoch": epoch, "epochs": config.epochs, **means}
        taken = time.perf_counter() - began
        if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
            record |= _validation(run)
        images = run.steps_per_epoch * config.batch_size
        record["images_per_second"] = images / taken
        seconds = progress.seconds + time.perf_counter() - began
        record["seconds"] = seconds
        record["seconds_left"] = seconds / (epoch + 1) * (config.epochs - epoch - 1)
        length = folder.append_log(record)
        progress = Progress(
            epochs=epoch + 1,
            steps=(epoch + 1) * run.steps_per_epoch,
            seconds=seconds,
            log_bytes=length,
        )
        save_checkpoint(
            folder.checkpoint,
            model=run.model,
            average=run.average,
            optimizer=run.optimizer,
            progress=progress,
        )
        watch.finished(record)
    return progress


def _validation(run: TrainingRun) -> dict[str, Any]:
    """Return the held-out record of an epoch, or nothing without held-out images."""
    if len(run.split.held_out) == 0:
        return {}
    found = _evaluate_held_out(run, run.config.validation_copies)
    return {"validation": found.to_dict()}


def _evaluate_held_out(run: TrainingRun, copies: int) -> Evaluation:
    return evaluate(
        run.average,
        run.data,
        sigma=run.config.sigma,
        indices=run.split.held_out,
        copies=copies,
        seed=run.config.seed,
    )


def _card(
    run: TrainingRun,
    settings: Mapping[str, Any],
    progress: Progress,
    command: str | None,
    test: Dataset | None,
) -> dict[str, Any]:
    """Return the facts about the finished weights."""
    config = run.config
    name = settings["model"]["name"]
    call = f"deqcert.train({name!r}, data={run.data.name!r}, sigma={config.sigma})"
    card: dict[str, Any] = {
        "sigma": config.sigma,
        "command": command or call,
        "seed": config.seed,
        "seconds": round(progress.seconds, 1),
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
    }
    if len(run.split.held_out):
        card["held_out"] = _evaluate_held_out(run, config.card_copies).to_dict()
    if test is not None:
        _check(run.average, test)
        found = evaluate(
            run.average,
            test,
            sigma=config.sigma,
            indices=range(0, len(test), config.card_every),
            copies=config.card_copies,
            seed=config.seed,
        )
        card["test"] = {"digest": test.digest, **found.to_dict()}
    return card
