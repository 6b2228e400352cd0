"""One training run in memory: the step, the epoch, and what both are keyed by."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deqcert.data import ChooseBox, Dataset, prefetched
from deqcert.errors import ConfigurationError, TrainingError
from deqcert.models import EquilibriumModel
from deqcert.smoothing.noise import keyed_generator
from deqcert.training.batches import Batches
from deqcert.training.config import TrainConfig
from deqcert.training.losses import Terms, autocast, objective, unrolled_loss
from deqcert.training.optimizer import make_optimizer
from deqcert.training.resized_crop import keyed_boxes
from deqcert.training.schedule import learning_rate, update_average

_DIVERGED = 20.0
"""A median loss above so many times ln(classes), the loss of a blind guess, counts as diverged."""


Losses = dict[str, list[float]]
"""The loss and its parts, by name, at the steps of one epoch that are done. A part that only some
steps have (the Jacobian penalty) has fewer values than the loss."""


def steps_in(losses: Losses) -> int:
    """Return how many steps of the epoch are done."""
    return len(losses.get("loss", ()))


@dataclass(frozen=True)
class Split:
    """Rows of the training data. Both int64, ascending."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]


def split_rows(count: int, config: TrainConfig) -> Split:
    """Hold out `validation_share` of `count` rows, chosen by the seed.

    Raises:
        ConfigurationError: Fewer than one batch is left.
    """
    order = keyed_generator(config.seed, 0, "train-split").permutation(count)
    held = round(config.validation_share * count)
    split = Split(np.sort(order[held:]), np.sort(order[:held]))
    if len(split.train) < config.batch_size:
        raise ConfigurationError(
            f"batch_size {config.batch_size} is above the {len(split.train)} images to train on"
        )
    return split


class TrainingRun:
    """Model, weight average and optimiser, moved on epoch by epoch.

    Randomness is keyed by (seed, epoch, step) and nothing else is carried along but the tensors,
    so an epoch run again from the same tensors gives the same tensors.

    Args:
        model: The model; it is trained in place.
        data: The training data.
        config: The settings.
    """

    def __init__(self, model: EquilibriumModel, data: Dataset, config: TrainConfig) -> None:
        self.model = model
        self.data = data
        self.config = config
        self.split = split_rows(len(data), config)
        self.average = copy.deepcopy(model).requires_grad_(False).eval()
        self.optimizer = make_optimizer(model, config)
        self.steps_per_epoch = len(self.split.train) // config.batch_size
        self._device = next(model.parameters()).device
        self.batches = Batches(data, self.split.train, config, self._device)

    def epoch(self, epoch: int, losses: Losses, stepped: Callable[[float], None]) -> None:
        """Run the steps of one epoch (from 0) that `losses` lacks, and add them to it.

        Args:
            epoch: The epoch.
            losses: The loss and its parts at the steps already done; empty at its beginning.
            stepped: Called with the loss after each step, when weights and `losses` agree.

        Raises:
            TrainingError: The loss or its gradient is not finite, or the loss has diverged.
        """
        config = self.config
        order = keyed_generator(config.seed, epoch, "train-order").permutation(self.split.train)
        steps = range(steps_in(losses), self.steps_per_epoch)
        rows = (order[k * config.batch_size : (k + 1) * config.batch_size] for k in steps)
        self.model.train()
        devices = [] if self._device.type == "cpu" else [self._device]
        with torch.random.fork_rng(devices, device_type=_fork_type(self._device)):
            batches = prefetched(self.data, rows, choose=self._boxes(epoch))
            for step, loaded in zip(steps, batches, strict=True):
                terms = self._step(epoch, step, loaded)
                for name, part in {"loss": terms.loss.detach(), **terms.parts}.items():
                    losses.setdefault(name, []).append(float(part))
                stepped(losses["loss"][-1])
        typical = statistics.median(losses["loss"])
        if typical > _DIVERGED * math.log(self.model.num_classes):
            raise TrainingError(
                f"the loss has diverged to {typical:.3g} in epoch {epoch + 1}; lower the "
                f"learning rate ({config.learning_rate:g}); the last good checkpoint is kept"
            )

    def _boxes(self, epoch: int) -> ChooseBox | None:
        """Return which windows of the original images this epoch trains on, if it does so."""
        spec = self.config.augment and self.config.augment.resized_crop
        return keyed_boxes(spec, seed=self.config.seed, epoch=epoch) if spec else None

    def _step(self, epoch: int, step: int, loaded: tuple[Tensor, Tensor]) -> Terms:
        total = epoch * self.steps_per_epoch + step
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(
                self.config, total, self.config.epochs * self.steps_per_epoch
            )
        generator = keyed_generator(self.config.seed, epoch, "train-step", step)
        batch = self.batches.draw(self.model, generator, loaded, epoch=epoch, step=total)
        loss = unrolled_loss if total < self.batches.pretraining else objective
        with autocast(self.config, self._device):
            terms = loss(self.model, batch, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        terms.loss.backward()
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        # Before the weights move: one non-finite gradient would spoil them and Adam's averages.
        if not bool(torch.isfinite(terms.loss) & torch.isfinite(norm)):
            raise TrainingError(
                f"the loss or its gradient is not finite at epoch {epoch + 1}, step {step + 1}; "
                f"lower the learning rate ({self.config.learning_rate:g}); the last good "
                "checkpoint is kept"
            )
        self.optimizer.step()
        update_average(self.average, self.model, decay=self.config.ema_decay, step=total + 1)
        return terms


def _fork_type(device: torch.device) -> str:
    # fork_rng always covers the CPU; the type only says what `devices` are, and must exist.
    return "cuda" if device.type == "cpu" else device.type
