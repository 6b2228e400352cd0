"""`train`: from a model and a data set to a folder with trained weights, resumable at any time."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from deqcert.data import Dataset
from deqcert.data.dataset import check_dataset
from deqcert.errors import ConfigurationError, RunFolderError
from deqcert.models import EquilibriumModel, build, load_weights, save_model, weights_digest
from deqcert.models.devices import usable_device
from deqcert.smoothing.noise import keyed_generator
from deqcert.training.card import make_card, require_fit
from deqcert.training.config import TrainConfig
from deqcert.training.folder import LOCK_NAME, TrainingFolder, require_usable
from deqcert.training.interval import with_bounds
from deqcert.training.progress import TrainWatch
from deqcert.training.run import TrainingRun
from deqcert.training.session import Session


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
    model_settings: Mapping[str, Any] | None = None,
    weights: EquilibriumModel | None = None,
    checkpoint_seconds: float = 120.0,
    pause_after: float | None = None,
) -> TrainResult:
    """Train a model under Gaussian noise into the folder `out`, or go on where it stopped.

    Every epoch ends with a checkpoint, and long ones have some within. A run that was stopped, by
    kill -9 too, gives the same weights to the last bit as one that was not, on the same machine
    with as many threads.

    Args:
        model: A model, of which a copy is trained; or the name of an architecture, which is built
            with fresh weights drawn from the seed, for as many classes as the data have.
        data: The training data.
        out: The folder: missing, empty, or of a run with the same settings. It gets
            settings, log, checkpoints, events for TensorBoard where it is installed, and in the
            end ``model.safetensors``, for `load_model`, and ``card.json``.
        config: The settings.
        test: Data the finished model is evaluated on for its card; nothing is chosen by it.
        command: The command to name in the card; None means the call itself, in brief.
        watch: Callbacks for progress.
        device: Where to train; None means where the model is.
        model_settings: Settings in which a named architecture is to differ (a recipe's `model`).
        weights: A trained model that a named architecture starts from, instead of fresh weights: to
            go on at another noise level, or to make a model of many steps one of few. Its own
            settings (dropout, solver) do not count; the digest of its weights becomes part of the
            run's settings and of the card.
        checkpoint_seconds: Time between checkpoints within an epoch, > 0; it changes no weight.
        pause_after: Seconds after which to save and stop, > 0, for machines that are lent by the
            hour; None never does.

    Raises:
        ConfigurationError: Model, data and settings do not fit each other, or are out of range.
        UnknownNameError: No such architecture.
        RunFolderError: The folder holds something else or other settings, or is in use.
        CheckpointError: The checkpoint is damaged, or the disk refused one.
        TrainingError: The loss is not finite, or it or the fixed points have diverged; the last
            checkpoint is kept.
        TrainingPaused: The time was up. Nothing is lost, and the same call goes on.
    """
    watch = watch or TrainWatch()
    if not checkpoint_seconds > 0.0:
        raise ConfigurationError(f"checkpoint_seconds must be > 0, but got {checkpoint_seconds!r}")
    if pause_after is not None and not pause_after > 0.0:
        raise ConfigurationError(f"pause_after must be > 0 seconds, but got {pause_after!r}")
    fresh, settings = _begin(model, data, config, model_settings or {}, weights)
    fresh = fresh.to(None if device is None else usable_device(device))
    path = Path(out)
    with _locked(path):
        folder = TrainingFolder(path, settings)
        run = TrainingRun(fresh, data, config)
        if not folder.model.exists():
            session = Session(
                run,
                folder,
                watch,
                checkpoint_seconds=checkpoint_seconds,
                pause_after=pause_after,
            )
            progress = session.finish()
            card = make_card(run, settings, progress, command=command, test=test)
            folder.write_card(card)
            save_model(run.average, folder.model, card=card)  # last: it marks the run as finished
        load_weights(run.average, folder.model)
        return TrainResult(run.average, folder.model, run.average.card or {}, folder.read_log())


def _begin(
    model: EquilibriumModel | str,
    data: Dataset,
    config: TrainConfig,
    changes: Mapping[str, Any],
    weights: EquilibriumModel | None,
) -> tuple[EquilibriumModel, dict[str, Any]]:
    """Return the model as it starts, and the settings that make a run this run.

    Raises:
        ConfigurationError: Model, data and settings do not fit each other.
        UnknownNameError: No such architecture.
    """
    check_dataset(data)
    changes = _as_json(changes)
    fresh = _fresh(model, config, changes)
    if isinstance(model, str) and fresh.num_classes != data.num_classes:
        changes = {"num_classes": data.num_classes, **changes}
        fresh = _fresh(model, config, changes)
    require_fit(fresh, data)
    if config.objective == "interval":
        with_bounds(fresh)
    if weights is not None:
        if not isinstance(model, str):
            raise ConfigurationError("weights need the name of an architecture to be put into")
        _take_over(fresh, weights, name=model)
    if config.augment and config.augment.resized_crop and not data.keeps_originals:
        raise data.without_originals()
    return fresh, {
        "config": config.to_dict(),
        "data": {"name": data.name, "split": data.split, "digest": data.digest},
        "model": {
            "name": model if isinstance(model, str) else type(model).__name__,
            **({"settings": changes} if changes else {}),
            "start": weights_digest(fresh),
        },
    }


def _take_over(fresh: EquilibriumModel, weights: EquilibriumModel, *, name: str) -> None:
    """Give a model the tensors of another one."""
    found, wanted = weights.state_dict(), fresh.state_dict()
    for key in (*wanted, *found):
        ours, theirs = (_shape(tensors.get(key)) for tensors in (wanted, found))
        if ours != theirs:
            raise ConfigurationError(
                f"the weights are of another architecture than {name}: {key} is {theirs} in them "
                f"and {ours} in it"
            )
    fresh.load_state_dict(found)


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as JSON gives them back."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()}


def _fresh(
    model: EquilibriumModel | str, config: TrainConfig, changes: Mapping[str, Any]
) -> EquilibriumModel:
    if not isinstance(model, str):
        if changes:
            raise ConfigurationError("model_settings need the name of an architecture")
        return copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(int(keyed_generator(config.seed, 0, "train-weights").integers(2**63)))
        return build(model, **changes).eval()


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
