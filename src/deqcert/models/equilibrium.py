"""The plug-in interface: what a deep equilibrium model must offer to be trained and certified."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from deqcert.errors import ConfigurationError, InputError
from deqcert.models.graphs import RecordedSolves
from deqcert.models.implicit import GradientSpec, equilibrium
from deqcert.models.rows import solve_rows
from deqcert.solvers import SolverSpec, State


class EquilibriumModel(nn.Module, ABC):
    """A classifier of the fixed point z* = f(z*, x).

    A subclass offers four methods; solving, gradients, batching and folding are done for it.
    The cell must be a function of its two arguments and of the module's parameters alone, row by
    row: whatever depends on the image, or is drawn at random, belongs into the injection.

    Args:
        num_classes: Classes, at least 2.
        input_shape: (C, H, W) of one image with pixels in [0, 1]; standardise inside `inject`, so
            that noise and radii stay in pixel units (THEORY 7.4).
        solver: Default solver of `forward`, a `SolverSpec` or its string.
        gradient: How gradients are taken at the fixed point; None means implicit.

    Raises:
        ConfigurationError: Fewer than 2 classes, or a shape that is not three positive sizes.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        input_shape: tuple[int, int, int],
        solver: SolverSpec | str = "anderson:30",
        gradient: GradientSpec | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ConfigurationError(f"num_classes must be at least 2, but got {num_classes}")
        if len(input_shape) != 3 or min(input_shape) < 1:
            raise ConfigurationError(
                f"input_shape must be three positive sizes (C, H, W), but got {input_shape}"
            )
        self.num_classes = int(num_classes)
        self.input_shape = (int(input_shape[0]), int(input_shape[1]), int(input_shape[2]))
        self.solver = SolverSpec.parse(solver, within="a model's own solver")
        self.gradient = GradientSpec() if gradient is None else gradient
        self.card: dict[str, Any] | None = None
        """Facts about the weights (training sigma, accuracies); None for fresh ones."""

    recorded_solves: RecordedSolves | None = None
    """Solves that are replayed; copies for inference on a GPU have some."""

    @abstractmethod
    def inject(self, x: Tensor) -> Any:  # x: (batch, C, H, W)
        """Return the input injection, once per solve: a pytree of batch-first tensors."""

    @abstractmethod
    def initial_state(self, injection: Any) -> State:  # (batch, ...) or a tuple of such
        """Return the start z0, a function of the injection alone (THEORY 1.2)."""

    @abstractmethod
    def cell(self, state: Any, injection: Any) -> State:
        """Return f(state, injection), of the same structure and shapes as `state`."""

    def first_step(self, state0: Any, injection: Any) -> State:
        """Return ``cell(state0, injection)`` of a `state0` that came from `initial_state`.

        A model whose start is known beforehand may compute it more cheaply; nothing else may.
        """
        return self.cell(state0, injection)

    @abstractmethod
    def classify(self, state: Any) -> Tensor:  # (batch, classes)
        """Return the logits of a state."""

    def forward(self, x: Tensor) -> Tensor:  # (batch, C, H, W) -> (batch, classes)
        """Solve with `self.solver` and classify.

        In training mode, or where a gradient is wanted, the result is differentiable. Otherwise
        rows are padded to fixed batch sizes, so that a row's logits do not depend on the batch it
        comes in (THEORY 1.1).

        Raises:
            InputError: `x` is not a floating-point batch of `input_shape` images.
        """
        self.check_images(x)
        if self.training or self._wants_gradient(x):
            return self.classify(equilibrium(self, self.inject(x)))
        logits, _ = solve_rows(self, x, self.solver)
        return logits

    def check_images(self, x: Tensor) -> None:
        """Raise `InputError` unless `x` is a floating-point batch of images of `input_shape`."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.input_shape:
            raise InputError(
                f"images must have shape (batch, {', '.join(map(str, self.input_shape))}), "
                f"but got {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise InputError(f"images must be floating point in [0, 1], but got {x.dtype}")

    def _wants_gradient(self, x: Tensor) -> bool:
        if not torch.is_grad_enabled():
            return False
        return x.requires_grad or any(p.requires_grad for p in self.parameters())
