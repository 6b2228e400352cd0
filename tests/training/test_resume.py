"""A run that is killed gives the weights of one that is not; a folder belongs to one run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deqcert.errors import (
    CheckpointError,
    ConfigurationError,
    RunFolderError,
    TrainingError,
    TrainingPaused,
)
from deqcert.models import load_model, weights_digest
from deqcert.training import ShortSolveSpec, TrainResult, TrainWatch, train
from tests.training import train_slowly
from tests.training.small import ScalarModel, two_levels

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    torch.set_num_threads(1)
    return train_slowly.run(tmp_path_factory.mktemp("whole") / "run")


def start(out: Path, *, checkpoint_seconds: float = 120.0) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.train_slowly", str(out), str(checkpoint_seconds)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill_after_epochs(process: subprocess.Popen[bytes], out: Path, epochs: int) -> None:
    """Wait until so many epochs are logged, let the next one begin, and kill -9."""
    log = out / "log.jsonl"
    kill_when(process, lambda: log.exists() and log.read_bytes().count(b"\n") >= epochs)


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    """Kill -9 as soon as it is so."""
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_runs_end_with_the_weights_of_a_whole_one(tmp_path, uninterrupted):
    out = tmp_path / "run"
    for epochs, seconds in ((1, 120.0), (3, 1e-9)):  # between checkpoints, and amid many
        kill_after_epochs(start(out, checkpoint_seconds=seconds), out, epochs)
        assert not (out / "model.safetensors").exists()
    require_same(train_slowly.run(out), uninterrupted)


def test_a_run_interrupted_within_an_epoch_goes_on_from_there(tmp_path, uninterrupted):
    out, steps = tmp_path / "run", 0

    def stepped(loss: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 8:
            raise KeyboardInterrupt  # the third step of the second epoch is not saved yet

    with pytest.raises(KeyboardInterrupt):
        train_slowly.run(out, checkpoint_seconds=1e-9, watch=TrainWatch(stepped=stepped))
    assert (out / "partial.safetensors").exists()
    seen: list[int] = []
    watch = TrainWatch(started=lambda steps, epochs, each: seen.append(steps))
    resumed = train_slowly.run(out, watch=watch)
    assert seen == [7]
    assert not (out / "partial.safetensors").exists()
    require_same(resumed, uninterrupted)


def test_slices_of_time_end_with_the_weights_of_a_whole_run(tmp_path, uninterrupted):
    out = tmp_path / "run"
    for done in (1, 2, 3, 4, 5, 1, 2):  # of five steps an epoch; less time than any step takes
        with pytest.raises(TrainingPaused, match=f"after {done} of 5 steps"):
            train_slowly.run(out, pause_after=1e-9)
    require_same(train_slowly.run(out, pause_after=600.0), uninterrupted)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_pause_must_come_after_some_time(tmp_path, seconds):
    with pytest.raises(ConfigurationError, match="pause_after"):
        train_slowly.run(tmp_path / "run", pause_after=seconds)
    assert not (tmp_path / "run").exists()


def test_a_diverged_epoch_leaves_the_checkpoint_of_the_last_good_one(tmp_path):
    config = dataclasses.replace(
        train_slowly.CONFIG,
        pretrain_epochs=0,
        augment=None,
        posterior=None,
        jacobian_weight=0.0,
        learning_rate=1e-9,
        short=ShortSolveSpec(steps=(8,), weights=(1.0,)),
    )
    with pytest.raises(TrainingError, match="diverged"):
        train(
            ScalarModel(slope=1.5, gain=-5.0),
            two_levels(),
            out=tmp_path,
            config=config,
            checkpoint_seconds=1e-9,
        )
    assert not (tmp_path / "partial.safetensors").exists()


def test_a_checkpoint_interval_must_be_positive(tmp_path):
    with pytest.raises(ConfigurationError, match="checkpoint_seconds"):
        train(
            ScalarModel(),
            two_levels(),
            out=tmp_path,
            config=train_slowly.CONFIG,
            checkpoint_seconds=0.0,
        )


def require_same(resumed: TrainResult, uninterrupted: TrainResult) -> None:
    assert weights_digest(resumed.model) == weights_digest(uninterrupted.model)
    timeless = [
        [{k: v for k, v in line.items() if "second" not in k} for line in result.log]
        for result in (resumed, uninterrupted)
    ]
    assert timeless[0] == timeless[1]
    assert [line["epoch"] for line in resumed.log] == list(range(train_slowly.CONFIG.epochs))


def test_a_finished_run_is_returned_without_training(uninterrupted):
    before = uninterrupted.path.stat().st_mtime_ns
    again = train_slowly.run(uninterrupted.path.parent)
    assert uninterrupted.path.stat().st_mtime_ns == before
    assert again.card == uninterrupted.card
    assert weights_digest(again.model) == weights_digest(uninterrupted.model)


def test_the_model_file_loads_and_carries_its_card(uninterrupted):
    loaded = load_model(uninterrupted.path)
    assert weights_digest(loaded) == uninterrupted.card["weights"]
    assert loaded.card is not None
    assert loaded.card["seed"] == train_slowly.CONFIG.seed
    assert loaded.card["config"]["short"]["steps"] == [1, 2]
    assert set(loaded.card["held_out"]["accuracy_by_steps"]) >= {"1", "2", "30"}
    beside = json.loads((uninterrupted.path.parent / "card.json").read_text())
    assert beside == loaded.card


def scalar_run(out: Path, **changes: object) -> TrainResult:
    config = dataclasses.replace(
        train_slowly.CONFIG,
        **{"epochs": 2, "augment": None, "pretrain_epochs": 0, "batch_size": 8, **changes},
    )
    return train(ScalarModel(), two_levels(), out=out, config=config)


def test_another_configuration_is_refused_by_name(tmp_path):
    scalar_run(tmp_path)
    with pytest.raises(RunFolderError, match=r"config\.sigma \(0\.5 there, 0\.25 now\)"):
        scalar_run(tmp_path, sigma=0.25)
    with pytest.raises(RunFolderError, match=r"config\.posterior\.share"):
        scalar_run(tmp_path, posterior=None)


def test_another_start_is_refused(tmp_path):
    scalar_run(tmp_path)
    config = dataclasses.replace(
        train_slowly.CONFIG, epochs=2, augment=None, pretrain_epochs=0, batch_size=8
    )
    with pytest.raises(RunFolderError, match=r"model\.start"):
        train(ScalarModel(slope=0.4), two_levels(), out=tmp_path, config=config)


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    note = tmp_path / "thesis.txt"
    note.write_text("precious")
    with pytest.raises(RunFolderError, match="not empty"):
        scalar_run(tmp_path)
    assert note.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [note]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    file = tmp_path / "run"
    file.write_text("x")
    with pytest.raises(RunFolderError, match="is a file"):
        scalar_run(file)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    scalar_run(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="truncated"):
        scalar_run(tmp_path)


def test_two_runs_cannot_share_a_folder(tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"), pytest.raises(RunFolderError, match="in use"):
        scalar_run(tmp_path)


def test_data_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="shape"):
        train(train_slowly.model(), two_levels(), out=tmp_path / "run", config=train_slowly.CONFIG)
    assert not (tmp_path / "run").exists()
