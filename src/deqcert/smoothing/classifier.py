"""The reference classifier: a deterministic label of one noisy image (THEORY 1).

Weights, solver, stateless start, stopping rule and precision together make the base classifier that
a certificate is about. `ReferenceClassifier` fixes them, computes in fixed even padded batch sizes,
and measures how far a logit lead still moves with the batch shape.
"""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deqcert.certificate import Reference
from deqcert.errors import ConfigurationError, InputError
from deqcert.models import (
    BATCH_SIZES,
    EquilibriumModel,
    inference_copy,
    solve_rows,
    weights_digest,
)
from deqcert.models.devices import named_precision, usable_device
from deqcert.models.families import architecture_of
from deqcert.models.inference import lacks_fast_parts
from deqcert.smoothing.hardware import HardwareBatch
from deqcert.smoothing.margin import measured_margin, probe_images
from deqcert.solvers import Solution, SolverSpec, State, Status, memory_bytes

NO_CLASS = -1
"""Label of a draw that counts for no class: failed, not finite, or (where asked) a near tie."""

_PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
_HISTORY_BYTES = 2 * 1024**3
_MEET = 5
"""Batches whose rows meet at an exit, so that those that go on fill whole ones again."""
_FAST_PARTS = {
    "cpu": ("the CPU", "pip install 'deqcert[fast]'"),
    "cuda": ("a GPU", "it needs Triton and an NVIDIA GPU of compute capability 8.0 or more"),
}
"""Where fast parts are to be had, and what they need there."""


@dataclass(frozen=True)
class Labels:
    """Labels of some draws.

    Attributes:
        label: Class per draw, `NO_CLASS` where the solve or its logits are not finite.
        lead: Logit lead over the runner-up per draw, or its distance to where an exit would
            have been decided the other way, if that is less; 0 where there is no class.
    """

    label: np.ndarray  # (count,) int32
    lead: np.ndarray  # (count,) float32

    def clear(self, margin: float) -> np.ndarray:  # (count,) int32
        """Return the labels with near ties (lead <= margin) turned into `NO_CLASS`."""
        return np.where(self.lead > margin, self.label, NO_CLASS).astype(np.int32)


def labels_of(
    logits: Tensor,  # (batch, classes)
    solution: Solution,
) -> Labels:
    """Return argmax labels and leads; rows that failed or are not finite get `NO_CLASS`.

    Raises:
        ConfigurationError: There is one class.
    """
    values = logits.detach().to(device="cpu", dtype=torch.float64).numpy()
    if values.shape[1] == 1:
        raise ConfigurationError("a classifier needs at least 2 classes, but the model gives 1")
    usable = np.isfinite(values).all(axis=1)
    usable &= solution.status.cpu().numpy() != int(Status.NONFINITE)
    values = np.where(usable[:, None], values, 0.0)
    label = values.argmax(axis=1)
    # Few numbers, many calls: NumPy takes less time than `top_two`, which devices need.
    two = np.partition(values, -2, axis=1)[:, -2:]
    lead = two[:, 1] - two[:, 0]
    if solution.clearance is not None:
        lead = np.minimum(lead, solution.clearance.cpu().numpy())
    label, lead = np.where(usable, label, NO_CLASS), np.where(usable, lead, 0.0)
    return Labels(label.astype(np.int32), lead.astype(np.float32))


def check_image(image: Tensor | np.ndarray, shape: tuple[int, ...]) -> Tensor:  # (C, H, W) float32
    """Return `image` as a float32 CPU tensor.

    Raises:
        InputError: No array, wrong shape, not finite, or a pixel outside [0, 1].
    """
    if isinstance(image, np.ndarray):
        # PyTorch refuses strides below zero and foreign byte orders, and warns of read-only memory.
        image = np.array(image, dtype=image.dtype.newbyteorder("="), order="C")
    try:
        tensor = torch.as_tensor(image).detach().to(device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"image must be an array of numbers: {reason}") from error
    if tuple(tensor.shape) != tuple(shape):
        raise InputError(f"image must have shape {tuple(shape)}, but got {tuple(tensor.shape)}")
    if not tensor.is_floating_point():
        raise InputError(
            f"image must be floating point in [0, 1], but got {tensor.dtype}; divide 8-bit "
            "pixels by 255"
        )
    tensor = tensor.to(torch.float32)
    if not bool(torch.isfinite(tensor).all()):
        raise InputError("image must be finite, but holds NaN or infinity")
    low, high = float(tensor.min()), float(tensor.max())
    if low < 0.0 or high > 1.0:
        raise InputError(f"pixels must lie in [0, 1], but range over [{low:.6g}, {high:.6g}]")
    return tensor.contiguous()


def precision_name(dtype: torch.dtype | str | None) -> str:
    """Return the name of a supported precision; None means float32.

    Raises:
        ConfigurationError: Not one of float32, float64, bfloat16.
    """
    name = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    if name not in _PRECISIONS:
        known = ", ".join(_PRECISIONS)
        raise ConfigurationError(f"precision must be one of {known}, but got {name!r}")
    return name


class ReferenceClassifier:
    """One base classifier f, and the machinery to run it and its serialized variants.

    Args:
        model: The model; it is copied for inference and stays trainable.
        spec: Solver of the cold reference solve.
        sigma: Noise level at which the numeric margin is measured, pixel units.
        device: Torch device; None means the CPU.
        precision: ``float32``, ``float64`` or ``bfloat16``.

    Raises:
        ConfigurationError: bfloat16 where the fast cell that defines it cannot be had; a device
            that is not here.
    """

    def __init__(
        self,
        model: EquilibriumModel,
        spec: SolverSpec,
        *,
        sigma: float,
        device: str | torch.device | None = None,
        precision: str = "float32",
    ) -> None:
        self.device = usable_device(device)
        self.dtype = _PRECISIONS[precision]
        self.precision = precision
        self.spec = spec
        with self.computing():
            self.model = inference_copy(model, dtype=self.dtype, device=self.device)
        if self.dtype == torch.bfloat16 and lacks_fast_parts(self.model):
            where, needs = _FAST_PARTS[self.device.type]
            raise ConfigurationError(
                f"bfloat16 on {where} is defined by the fast cell, stem and head: {needs}; plain "
                "ones round elsewhere, which makes them another classifier under the same name"
            )
        self.digest = weights_digest(model)
        self.architecture = architecture_of(model)
        self.input_shape = model.input_shape
        self.num_classes = int(model.num_classes)
        self.hardware = HardwareBatch(BATCH_SIZES[-1])
        probes = probe_images(self.input_shape, sigma).to(device=self.device, dtype=self.dtype)
        with self.computing():
            self.margin = measured_margin(self.model, spec, probes, self.hardware)

    def computing(self) -> AbstractContextManager[None]:
        """Compute in the precision of the classifier's name, whatever surrounds the call.

        To be entered wherever its model is asked, in whatever process.
        """
        return named_precision(self.device)

    def default_batch_size(self, *specs: SolverSpec) -> int:
        """Return the largest of the fixed batch sizes whose solver history fits in 2 GiB.

        With exits, up to five times the largest, as long as the states fit in a tenth of that.
        400 rows of 61,440 numbers take 1 GB under Anderson; a Broyden solve of 14 steps on ImageNet
        states would take 8. The batch size changes no label, so it may follow the memory.
        """
        with torch.no_grad():
            blank = torch.zeros(1, *self.input_shape, dtype=self.dtype, device=self.device)
            state = self.model.initial_state(self.model.inject(blank))
        parts = (state,) if isinstance(state, Tensor) else state
        features = sum(part[0].numel() for part in parts)
        size = torch.finfo(self.dtype).bits // 8

        def fits(rows: int) -> bool:
            needs = (memory_bytes(spec, rows, features, itemsize=size) for spec in specs)
            return max(needs) <= _HISTORY_BYTES

        most = self.hardware.rows  # fewer than the largest where memory has run out before
        rows = max((r for r in BATCH_SIZES if r <= most and fits(r)), default=BATCH_SIZES[0])
        if self.spec.exits and rows == BATCH_SIZES[-1]:
            rows *= max(1, min(_MEET, _HISTORY_BYTES // (10 * rows * features * size)))
        return rows

    @property
    def reference(self) -> Reference:
        """The record of this classifier for a certificate."""
        return Reference(
            weights_digest=self.digest,
            solver=str(self.spec),
            precision=self.precision,
            margin=self.margin,
        )

    def labelled(
        self,
        images: Tensor,  # (count, C, H, W)
        *,
        spec: SolverSpec | None = None,
        state0: State | None = None,
    ) -> tuple[Labels, Solution]:
        """Solve and label some noisy images; a cold reference solve unless told otherwise."""
        logits, solution = self._solved(images, spec or self.spec, state0)
        return labels_of(logits, solution), solution

    def ask(self, images: Tensor) -> Asked:  # (count, C, H, W)
        """Begin a cold reference solve of some noisy images; no state of it is kept."""
        return Asked(*self._solved(images, self.spec, None))

    def _solved(
        self, images: Tensor, spec: SolverSpec, state0: State | None
    ) -> tuple[Tensor, Solution]:
        moved = images.to(device=self.device, dtype=self.dtype)
        with self.computing():
            return solve_rows(self.model, moved, spec, state0=state0)


class Asked:
    """A solve that a GPU may still be busy with, and its labels once it is done.

    What is wanted of it is copied to the host right behind it, so that reading it does not wait for
    what the GPU is asked in the meantime.

    Args:
        logits: (batch, classes).
        solution: Of the same rows.
    """

    def __init__(self, logits: Tensor, solution: Solution) -> None:
        self._done: torch.cuda.Event | None = None
        self._logits, self._solution = logits, dataclasses.replace(solution, state=())
        if logits.device.type == "cuda":
            self._logits, self._solution = _on_the_way(logits), self._solution.mapped(_on_the_way)
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(logits.device))

    def labels(self) -> tuple[Labels, Solution]:
        """Return the labels, and what the solve cost; wait for it if need be."""
        if self._done is not None:
            self._done.synchronize()
        return labels_of(self._logits, self._solution), self._solution


def _on_the_way(x: Tensor) -> Tensor:  # on a GPU -> same shape, on the host
    """Return a tensor that will hold these numbers."""
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)
