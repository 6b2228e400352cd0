"""Watching the fixed points of a model in training: a loss can fall while they slip away."""

from __future__ import annotations

import numpy as np
import torch

from deqcert.errors import TrainingError
from deqcert.models import inference_copy, solve_rows
from deqcert.smoothing.noise import keyed_generator
from deqcert.solvers import SolverSpec, Status
from deqcert.training.run import TrainingRun

SOLVER = SolverSpec("anderson", 30)
_IMAGES = 32


def fixed_point_residual(run: TrainingRun, *, epoch: int) -> float:
    """Return the median relative residual of `SOLVER` on a few noisy training images.

    About 0 for a model that has fixed points and 1 for one that does not settle at all; the log
    carries it from epoch to epoch. While the unrolled network is trained nothing holds it down.

    Raises:
        TrainingError: Most of the solves left the finite numbers.
    """
    rows = run.split.train[:_IMAGES]
    images, _ = run.data.batch(rows)
    generator = keyed_generator(run.config.seed, epoch, "train-guard")
    noise = generator.standard_normal(tuple(images.shape), dtype=np.float32)
    model = inference_copy(run.model)
    device = next(model.parameters()).device
    noisy = (images + run.config.sigma * torch.from_numpy(noise)).to(device)
    _, solution = solve_rows(model, noisy, SOLVER)
    lost = int((solution.status == Status.NONFINITE).sum())
    if 2 * lost > len(rows):
        raise TrainingError(
            f"the fixed points have diverged in epoch {epoch + 1}: {lost} of {len(rows)} solves "
            "are not finite; lower the learning rate, or raise jacobian_weight or the closeness "
            "weight; the last good checkpoint is kept"
        )
    residual = solution.residual[torch.isfinite(solution.residual)]
    return float(residual.median())
