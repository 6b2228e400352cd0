"""Models written elsewhere, made into equilibrium models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deqcert.errors import ConfigurationError
from deqcert.models.equilibrium import EquilibriumModel
from deqcert.models.implicit import GradientSpec
from deqcert.solvers import SolverSpec, State


def from_functions(
    *,
    inject: Callable[[Tensor], Any],
    initial_state: Callable[[Any], State],
    cell: Callable[[Any, Any], State],
    classify: Callable[[Any], Tensor],
    num_classes: int,
    input_shape: tuple[int, int, int],
    solver: SolverSpec | str = "anderson:30",
    gradient: GradientSpec | None = None,
    parameters: Sequence[nn.Module] = (),
) -> EquilibriumModel:
    """Return an equilibrium model made of four functions (see `EquilibriumModel`).

    Functions that are modules, and the modules in `parameters`, are registered, so that moving,
    saving, training mode and gradients reach their weights. A function that uses a module must
    be a module itself, or a bound method of one in `parameters`, for copies to be independent:
    a closure keeps pointing at the original.

    Args:
        inject: Images (batch, C, H, W) -> injection, any pytree of batch-first tensors.
        initial_state: Injection -> start z0.
        cell: (state, injection) -> state.
        classify: State -> logits (batch, classes).
        num_classes: Classes, at least 2.
        input_shape: (C, H, W).
        solver: Default solver.
        gradient: How gradients are taken; None means implicit.
        parameters: Modules the functions use.
    """
    return _Functions(
        (inject, initial_state, cell, classify),
        parameters,
        num_classes=num_classes,
        input_shape=input_shape,
        solver=solver,
        gradient=gradient,
    )


def from_classifier(
    module: nn.Module,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
) -> EquilibriumModel:
    """Return a plain network as an equilibrium model, to be certified beside DEQs.

    Its state is its logits and its cell is constant, so one evaluation is exact. Standardising
    belongs into `module`: noise is added in pixel space.

    Args:
        module: Images (batch, C, H, W) in [0, 1] -> logits (batch, num_classes).
        num_classes: Classes, at least 2.
        input_shape: (C, H, W).
    """
    return _Classifier(module, num_classes=num_classes, input_shape=input_shape)


class _Functions(EquilibriumModel):
    def __init__(
        self,
        functions: tuple[Callable[..., Any], ...],
        parameters: Sequence[nn.Module],
        *,
        num_classes: int,
        input_shape: tuple[int, int, int],
        solver: SolverSpec | str,
        gradient: GradientSpec | None,
    ) -> None:
        super().__init__(
            num_classes=num_classes, input_shape=input_shape, solver=solver, gradient=gradient
        )
        # Assigning a module registers it; anything else is kept as it is.
        self.inject_function, self.start_function, self.cell_function, self.classify_function = (
            functions
        )
        self.used = nn.ModuleList(parameters)

    def inject(self, x: Tensor) -> Any:
        return self.inject_function(x)

    def initial_state(self, injection: Any) -> State:
        return self.start_function(injection)

    def cell(self, state: Any, injection: Any) -> State:
        return self.cell_function(state, injection)

    def classify(self, state: Any) -> Tensor:
        return self.classify_function(state)


class _Classifier(EquilibriumModel):
    def __init__(
        self, module: nn.Module, *, num_classes: int, input_shape: tuple[int, int, int]
    ) -> None:
        # One unrolled step is exact here, and cheaper than the adjoint of a constant cell.
        super().__init__(
            num_classes=num_classes,
            input_shape=input_shape,
            solver="picard:1",
            gradient=GradientSpec(method="unrolled", steps=1),
        )
        self.module = module

    def inject(self, x: Tensor) -> Tensor:  # (batch, C, H, W) -> (batch, classes)
        logits = self.module(x)
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise ConfigurationError(
                f"the classifier must return (batch, {self.num_classes}) logits, "
                f"but got {tuple(logits.shape)}"
            )
        return logits

    def initial_state(self, injection: Tensor) -> Tensor:
        return torch.zeros_like(injection)

    def cell(self, state: Tensor, injection: Tensor) -> Tensor:
        del state
        return injection

    def classify(self, state: Tensor) -> Tensor:
        return state
