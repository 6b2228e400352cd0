"""The batches of a training run: every random thing of a step, drawn from one keyed generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from deqcert.data import Dataset
from deqcert.models import EquilibriumModel, iterates
from deqcert.smoothing.noise import keyed_generator
from deqcert.training.augment import augment
from deqcert.training.config import TrainConfig
from deqcert.training.losses import Batch, autocast
from deqcert.training.posterior import MixturePosterior, make_posterior, require_small
from deqcert.training.schedule import jacobian_weight
from deqcert.training.smooth_adv import SmoothAdvSpec, attack


class Batches:
    """Draws the batches of a run.

    Args:
        data: The training data.
        rows: Rows of it that are trained on. shape: (N,)
        config: The settings.
        device: Where batches go.
    """

    def __init__(
        self, data: Dataset, rows: NDArray[np.int64], config: TrainConfig, device: torch.device
    ) -> None:
        self._data = data
        self._config = config
        self._device = device
        self._posterior = self._make_posterior(rows)
        steps = len(rows) // config.batch_size
        self.pretraining = config.pretrain_epochs * steps + config.pretrain_updates
        """Steps of the run that train the unrolled network."""

    def draw(
        self,
        model: EquilibriumModel,
        generator: np.random.Generator,
        loaded: tuple[Tensor, Tensor],  # (B, C, H, W) in [0, 1], (B,)
        *,
        epoch: int,
        step: int,
    ) -> Batch:
        """Return the batch of `step` (from 0, over all epochs), drawn always in the same order.

        Args:
            model: What SmoothAdv attacks.
            generator: Source of everything random, PyTorch's global generator included.
            loaded: Images and labels, as the data set gives them.
            epoch: Epoch, from 0.
            step: Optimiser step, from 0, over all epochs.
        """
        config = self._config
        torch.manual_seed(int(generator.integers(2**63)))  # dropout masks, in the forked state
        probes = torch.Generator(self._device).manual_seed(int(generator.integers(2**63)))
        penalised = generator.random() < config.jacobian_frequency
        images, labels = loaded
        targets = F.one_hot(labels, self._data.num_classes).to(images.dtype)
        if config.augment is not None:
            images = augment(images, config.augment, generator)
        noise = self._noise(images.shape, generator)
        if config.smooth_adv is not None:
            images, targets, noise = self._attacked(
                model,
                images,
                targets,
                noise,
                generator,
                epsilon=config.smooth_adv.epsilon_at(epoch),
            )
        noisy = images + noise
        if self._posterior is not None and config.posterior is not None:
            targets = torch.lerp(targets, self._posterior(noisy), config.posterior.share)
        warm = config.objective == "short-solve" and config.short.warm_weight > 0.0
        other = images + self._noise(images.shape, generator) if warm else None
        weight = jacobian_weight(config, epoch=epoch, step=step - self.pretraining)
        penalised = penalised and weight > 0.0
        low, high = config.solver_jitter
        return Batch(
            images=noisy.to(self._device),
            targets=targets.to(self._device),
            other=None if other is None else other.to(self._device),
            probes=probes if penalised else None,
            jacobian_weight=weight,
            ramp=min(1.0, (step + 1) / max(1, config.interval.ramp)),
            more_steps=int(generator.integers(low, high + 1)) if penalised else 0,
        )

    def _attacked(
        self,
        model: EquilibriumModel,
        images: Tensor,  # (B, C, H, W)
        targets: Tensor,  # (B, classes)
        first: Tensor,  # (B, C, H, W), the noise already drawn
        generator: np.random.Generator,
        *,
        epsilon: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # each (samples * B, ...)
        """Return attacked images, their targets, and the noise they were attacked under."""
        spec = self._config.smooth_adv
        assert spec is not None, "the caller checks"
        more = [self._noise(images.shape, generator) for _ in range(spec.samples - 1)]
        noise = torch.stack([first, *more])
        found = _attack(
            model,
            images.to(self._device),
            targets.to(self._device),
            noise.to(self._device),
            self._config,
            spec=spec,
            epsilon=epsilon,
        ).to(images.device)
        return (
            found.repeat(spec.samples, 1, 1, 1),
            targets.repeat(spec.samples, 1),
            noise.flatten(0, 1),
        )

    def _noise(self, shape: Sequence[int], generator: np.random.Generator) -> Tensor:
        noise = generator.standard_normal(tuple(shape), dtype=np.float32)
        return self._config.sigma * torch.from_numpy(noise)

    def _make_posterior(self, rows: NDArray[np.int64]) -> MixturePosterior | None:
        """Return the posterior of the images trained on; those held out stay out of it."""
        spec = self._config.posterior
        if spec is None or spec.share == 0.0:
            return None
        require_small(len(rows), self._data.input_shape, spec, self._config.augment)
        images, labels = self._data.batch(rows)
        return make_posterior(
            images,
            labels,
            num_classes=self._data.num_classes,
            sigma=self._config.sigma,
            spec=spec,
            changes=self._config.augment,
            generator=keyed_generator(self._config.seed, 0, "train-posterior"),
        )


def _attack(
    model: EquilibriumModel,
    images: Tensor,  # (B, C, H, W)
    targets: Tensor,  # (B, classes)
    noise: Tensor,  # (m, B, C, H, W)
    config: TrainConfig,
    *,
    spec: SmoothAdvSpec,
    epsilon: float,
) -> Tensor:  # (B, C, H, W)
    """Attack the unrolled network, in eval mode: running statistics neither move nor leak."""
    mode = model.training
    model.eval()

    def logits(x: Tensor) -> Tensor:
        with autocast(config, x.device):
            return model.classify(iterates(model, model.inject(x), spec.solver_steps)[-1])

    try:
        return attack(logits, images, targets, noise, epsilon=epsilon, steps=spec.steps)
    finally:
        model.train(mode)
