"""One session of a training run: from what lies on disk to the last epoch, saving on the way."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

from deqcert.errors import TrainingError, TrainingPaused
from deqcert.training.card import validation
from deqcert.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from deqcert.training.folder import TrainingFolder
from deqcert.training.guard import fixed_point_residual
from deqcert.training.progress import TrainWatch
from deqcert.training.run import Losses, TrainingRun, steps_in
from deqcert.training.tensorboard import ScalarLog


class Session:
    """Runs the epochs that are missing; each ends on disk before the next begins.

    Args:
        run: The run in memory; its tensors are replaced by those on disk, if there are any.
        folder: The run's folder.
        watch: Callbacks for progress.
        checkpoint_seconds: Time between checkpoints within an epoch.
        pause_after: Seconds after which to save and stop; None never does.

    Raises:
        CheckpointError: A checkpoint is damaged.
    """

    def __init__(
        self,
        run: TrainingRun,
        folder: TrainingFolder,
        watch: TrainWatch,
        *,
        checkpoint_seconds: float,
        pause_after: float | None = None,
    ) -> None:
        self.run = run
        self.folder = folder
        self.watch = watch
        self.checkpoint_seconds = checkpoint_seconds
        self._pause_after = math.inf if pause_after is None else pause_after
        self._before = Progress()
        self._losses: Losses = {}
        for path in (folder.checkpoint, folder.partial):  # the later one last
            if path.exists():
                self._before, self._losses = load_checkpoint(
                    path, model=run.model, average=run.average, optimizer=run.optimizer
                )
        self._began = time.perf_counter()
        self._processor_began = time.process_time()

    def finish(self) -> Progress:
        """Run to the end and return how far that is.

        Raises:
            TrainingError: The loss is not finite, or it or the fixed points have diverged; the
                checkpoint of the last finished epoch is kept.
            CheckpointError: The disk refused.
            TrainingPaused: The time was up.
        """
        progress, config = self._before, self.run.config
        self.folder.cut_log(progress.log_bytes)
        scalars = ScalarLog(self.folder.path, epoch=progress.epochs)
        self.watch.started(progress.steps, config.epochs, self.run.steps_per_epoch)
        for epoch in range(progress.epochs, config.epochs):
            record = self._epoch(epoch, progress)
            scalars.write(record)
            length = self.folder.append_log(record)
            progress = dataclasses.replace(self._progress(progress, epoch + 1), log_bytes=length)
            self._save(self.folder.checkpoint, progress, {})
            self.folder.partial.unlink(missing_ok=True)
            self.watch.finished(record)
        scalars.close()
        return progress

    def _epoch(self, epoch: int, progress: Progress) -> dict[str, Any]:
        """Run what is missing of one epoch and return its record."""
        run, config = self.run, self.run.config
        losses, self._losses = self._losses, {}
        first, began = steps_in(losses), time.perf_counter()
        saved = began

        def stepped(loss: float) -> None:
            nonlocal saved
            self.watch.stepped(loss)
            now = time.perf_counter()
            paused = now - self._began > self._pause_after
            if paused or now - saved > self.checkpoint_seconds:
                self._save(self.folder.partial, self._progress(progress, epoch, losses), losses)
                saved = time.perf_counter()
            if paused:
                done, each = steps_in(losses), run.steps_per_epoch
                raise TrainingPaused(
                    f"paused after {done} of {each} steps of epoch {epoch + 1} of "
                    f"{config.epochs}; the same command goes on from here"
                )

        try:
            run.epoch(epoch, losses, stepped)
            taken = time.perf_counter() - began
            residual = fixed_point_residual(run, epoch=epoch)
        except TrainingError:
            self.folder.partial.unlink(missing_ok=True)  # on its way to where this ended
            raise
        means = {name: sum(values) / len(values) for name, values in losses.items()}
        record = {"epoch": epoch, "epochs": config.epochs, **means, "residual": residual}
        if (epoch + 1) % config.validate_every == 0 or epoch + 1 == config.epochs:
            record |= validation(run)
        images = (run.steps_per_epoch - first) * config.batch_size
        if images > 0:
            record["images_per_second"] = images / taken
        seconds = self._progress(progress, epoch + 1).seconds
        record["seconds"] = seconds
        record["seconds_left"] = seconds / (epoch + 1) * (config.epochs - epoch - 1)
        return record

    def _progress(self, progress: Progress, epochs: int, losses: Losses | None = None) -> Progress:
        """Return how far the run is now, `epochs` finished and `losses` begun."""
        processor = time.process_time() - self._processor_began
        return Progress(
            epochs=epochs,
            steps=epochs * self.run.steps_per_epoch + steps_in(losses or {}),
            seconds=self._before.seconds + time.perf_counter() - self._began,
            processor_seconds=self._before.processor_seconds + processor,
            log_bytes=progress.log_bytes,
        )

    def _save(self, path: Path, progress: Progress, losses: Losses) -> None:
        run = self.run
        save_checkpoint(
            path,
            model=run.model,
            average=run.average,
            optimizer=run.optimizer,
            progress=progress,
            losses=losses,
        )
