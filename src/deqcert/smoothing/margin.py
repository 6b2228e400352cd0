"""The numeric margin: how far a logit lead moves with what must not decide a label (THEORY 1.1)."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from deqcert.errors import ConfigurationError, NumericalWarning
from deqcert.models import BATCH_SIZES, EquilibriumModel, solve_rows
from deqcert.models.fast_part import plain_parts
from deqcert.models.rows import start_rows
from deqcert.models.trees import leaves
from deqcert.smoothing.hardware import HardwareBatch
from deqcert.smoothing.noise import NoiseSource
from deqcert.solvers import SolverSpec, State, map_state, select_rows

PROBES = 64
_SAFETY = 4.0
_SHAPES = (1, 7, BATCH_SIZES[0], 32, BATCH_SIZES[-1])
"""Rows handed over at once: alone, odd, the smallest batch, a chunk, the largest batch."""
_SHAPES_ON_GPU = (1, 7, *BATCH_SIZES)
"""There the product behind the logits may be another kernel for any batch size."""
_FEW = 2
"""Batches of each shape that a look takes."""
_LOOKED = 4
"""Steps of a look, where the solver has a memory; without one each step is like the first."""

NO_LEAD = 2.0**127
"""The margin that no lead of finite logits passes."""

Answer = tuple[Tensor, State]
"""Logits (rows, classes) and states (rows, ...)."""


def probe_images(shape: tuple[int, ...], sigma: float) -> Tensor:  # (PROBES, C, H, W) float32
    """Return noise of many contrasts as images, with noise of deviation `sigma` on top."""
    source = NoiseSource(seed=0, index=0, shape=shape, sigma=sigma)
    pixels = source.draws("margin-images", range(PROBES)).numpy() / np.float32(sigma)
    images = torch.from_numpy(np.clip(0.5 + 0.5 * pixels, 0.0, 1.0))
    return images + source.draws("margin-noise", range(PROBES))


def measured_margin(
    model: EquilibriumModel,
    spec: SolverSpec,
    probes: Tensor,  # (PROBES, C, H, W)
    hardware: HardwareBatch,
) -> float:
    """Return the logit lead below which more than the noise could decide a label.

    Measured, not proved: the largest change of a top-two logit difference of the probes, stopping
    decisions included,

    - between batch shapes: alone, an odd number, the smallest batch, a chunk, the largest batch; on
      a GPU every batch size there is. First a look: a few more steps from the solved states, and
      the logits. A shape in which these agree to the bit with one batch of all probes gives the
      same whole solves, which are such steps again and again. In any other shape all probes are
      solved from the start;
    - in float32 between the model's fast parts and the plain ones, by whole solves of all probes
      (in half precision the plain ones are another classifier: they round between all operations).

    Where the solver has exits, of the leads at all of them and at the end: a draw whose lead is
    this close to an exit's does not count either (`Labels.lead`).

    A safety factor of 4 comes on top, at least the rounding of the logits is assumed, and the
    result is rounded up to a power of two, so that the same machine always finds the same. Where
    there is nothing to measure it is `NO_LEAD`.

    Args:
        model: The model, as copied for inference.
        spec: Solver of the cold reference solve.
        probes: Noisy images, in the precision of the classifier.
        hardware: Rows computed at once; learns where memory runs out.

    Warns:
        NumericalWarning: No probe has finite logits, or some have them in some batches only; or the
            lead of most probes is within the margin.

    Raises:
        ConfigurationError: The model's logits are not as many as its classes.
    """
    if spec.exits:
        stages = (*(steps for steps, _ in spec.exits), spec.max_steps)
        parts = [dataclasses.replace(spec, max_steps=steps, exits=()) for steps in stages]
        return max(measured_margin(model, part, probes, hardware) for part in parts)
    subject = _Subject(model, probes, hardware)
    whole, solved = subject.solve(spec, PROBES)
    if whole.shape != (PROBES, model.num_classes) or not whole.is_floating_point():
        raise ConfigurationError(
            f"classify must return floating-point logits of shape (batch, {model.num_classes}), "
            f"but of {PROBES} images it gave {whole.dtype} of shape {tuple(whole.shape)}"
        )
    others = [subject.solve(spec, shape)[0] for shape in subject.apart(spec, solved)]
    if probes.dtype == torch.float32:
        with plain_parts(model) as any_fast:
            others += [subject.solve(spec, PROBES)[0]] if any_fast else []
    usable = torch.isfinite(whole).all(dim=1)
    if not bool(usable.any()):
        return _beyond("no probe has finite logits")
    if not all(torch.equal(torch.isfinite(logits).all(dim=1), usable) for logits in others):
        return _beyond("which probes have finite logits depends on the batch they are in")
    order = whole.topk(2, dim=1).indices
    leads = [_difference(logits, order)[usable] for logits in (whole, *others)]
    moved = max(float((lead - leads[0]).abs().max()) for lead in leads)
    rounding = torch.finfo(whole.dtype).eps * float(whole[usable].abs().max())
    margin = 2.0 ** math.ceil(math.log2(max(_SAFETY * moved, rounding, 1e-30)))
    if margin > float(leads[0].median()):
        warnings.warn(
            f"the numeric margin, {margin:.2g}, is above the lead of most probes, so few draws "
            "will count as clear; does the model mix the rows of a batch, or draw at random?",
            NumericalWarning,
            stacklevel=3,
        )
    return margin


def _beyond(why: str) -> float:
    warnings.warn(
        f"{why}: no numeric margin can be measured, so no lead of a draw will count as clear",
        NumericalWarning,
        stacklevel=4,
    )
    return NO_LEAD


class _Subject:
    """A model and the probes to solve by it."""

    def __init__(self, model: EquilibriumModel, probes: Tensor, hardware: HardwareBatch) -> None:
        self.model = model
        self.probes = probes
        self.hardware = hardware

    def solve(self, spec: SolverSpec, shape: int) -> Answer:
        """Solve all probes, in batches of one shape."""
        count = max(PROBES, shape)
        logits, state = self._ask(lambda chosen: self._solved(spec, chosen), shape, count)
        return logits[:PROBES], map_state(lambda part: part[:PROBES], state)

    def apart(self, spec: SolverSpec, solved: State) -> list[int]:
        """Return the batch shapes in which a bit differs from one batch of all probes."""
        steps = 1 if spec.name == "picard" else min(_LOOKED, spec.max_steps)
        look = dataclasses.replace(spec, max_steps=steps, tol=0.0)
        asked = [lambda chosen: self._solved(look, chosen, select_rows(solved, chosen))]
        if not _all_rows_alike(self._ask(self._begun, PROBES, PROBES)[1]):
            asked.append(self._begun)
        usual = [self._ask(compute, PROBES, PROBES) for compute in asked]
        found = []
        for shape in _SHAPES if self.probes.device.type == "cpu" else _SHAPES_ON_GPU:
            count = shape * max(1, min(_FEW, PROBES // shape))
            answers = [self._ask(compute, shape, count) for compute in asked]
            if not all(map(_same_bits, answers, usual)):
                found.append(shape)
        return found

    def _ask(self, compute: Callable[[Tensor], Answer], shape: int, count: int) -> Answer:
        """Compute so many rows, the probes over and over, in batches of one shape."""
        answers: list[Answer] = []

        def work(low: int, high: int) -> None:
            places = torch.arange(first + low, first + high, device=self.probes.device)
            answers.append(compute(places % PROBES))

        for first in range(0, count, shape):
            self.hardware.each(min(shape, count - first), work)
        logits, states = zip(*answers, strict=True)
        return torch.cat(logits), map_state(lambda *parts: torch.cat(parts), *states)

    def _solved(self, spec: SolverSpec, chosen: Tensor, start: State | None = None) -> Answer:
        logits, solution = solve_rows(self.model, self.probes[chosen], spec, start)
        return logits, solution.state

    def _begun(self, chosen: Tensor) -> Answer:
        return start_rows(self.model, self.probes[chosen], self.model.initial_state)


def _all_rows_alike(state: State) -> bool:
    return all(bool((part == part[:1]).all()) for part in leaves(state))


def _same_bits(found: Answer, usual: Answer) -> bool:
    """Return whether the rows found are those of the probes, over and over."""
    parts = zip((found[0], *leaves(found[1])), (usual[0], *leaves(usual[1])), strict=True)
    for part, wanted in parts:
        again = wanted[torch.arange(len(part), device=part.device) % PROBES]
        if not bool(((part == again) | (part.isnan() & again.isnan())).all()):
            return False
    return True


def _difference(logits: Tensor, order: Tensor) -> Tensor:  # (rows,), float64
    chosen = logits.double().gather(1, order)
    return chosen[:, 0] - chosen[:, 1]
