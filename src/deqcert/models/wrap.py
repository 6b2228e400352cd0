"""Models written elsewhere, made into equilibrium models."""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deqcert.errors import ConfigurationError
from deqcert.models.equilibrium import EquilibriumModel
from deqcert.models.implicit import GradientSpec
from deqcert.solvers import SolverSpec, State


def from_functions(
    module: nn.Module,
    *,
    inject: Callable[[Any, Tensor], Any],
    initial_state: Callable[[Any, Any], State],
    cell: Callable[[Any, Any, Any], State],
    classify: Callable[[Any, Any], Tensor],
    num_classes: int,
    input_shape: tuple[int, int, int],
    solver: SolverSpec | str = "anderson:30",
    gradient: GradientSpec | None = None,
) -> EquilibriumModel:
    """Return a DEQ written elsewhere as an equilibrium model.

    Every function is given `module` first, and must reach weights through it alone: the model is
    copied for inference, and a function that held on to a module of its own would go on using the
    original, in whatever mode and precision that is.

    >>> net = nn.ModuleDict({"mix": nn.Linear(4, 4), "read": nn.Linear(4, 2)})
    >>> model = from_functions(
    ...     net,
    ...     inject=lambda net, x: x.flatten(1),
    ...     initial_state=lambda net, u: torch.zeros_like(u),
    ...     cell=lambda net, z, u: torch.tanh(0.5 * net["mix"](z) + u),
    ...     classify=lambda net, z: net["read"](z),
    ...     num_classes=2,
    ...     input_shape=(1, 2, 2),
    ... )
    >>> model(torch.zeros(3, 1, 2, 2)).shape
    torch.Size([3, 2])

    Args:
        module: Holds all weights the functions use.
        inject: (module, images (batch, C, H, W)) -> injection, a pytree of batch-first tensors.
        initial_state: (module, injection) -> start z0.
        cell: (module, state, injection) -> state.
        classify: (module, state) -> logits (batch, classes).
        num_classes: Classes, at least 2.
        input_shape: (C, H, W).
        solver: Default solver.
        gradient: How gradients are taken; None means implicit.

    Raises:
        ConfigurationError: A function holds on to a module of its own.
    """
    functions = {
        "inject": inject, "initial_state": initial_state, "cell": cell, "classify": classify
    }  # fmt: skip
    for role, function in functions.items():
        require_own_weights(role, function)
    return _Functions(
        module,
        functions,
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
        module: nn.Module,
        functions: dict[str, Callable[..., Any]],
        *,
        num_classes: int,
        input_shape: tuple[int, int, int],
        solver: SolverSpec | str,
        gradient: GradientSpec | None,
    ) -> None:
        super().__init__(
            num_classes=num_classes, input_shape=input_shape, solver=solver, gradient=gradient
        )
        self.module = module
        self._functions = functions

    def inject(self, x: Tensor) -> Any:
        return self._functions["inject"](self.module, x)

    def initial_state(self, injection: Any) -> State:
        return self._functions["initial_state"](self.module, injection)

    def cell(self, state: Any, injection: Any) -> State:
        return self._functions["cell"](self.module, state, injection)

    def classify(self, state: Any) -> Tensor:
        return self._functions["classify"](self.module, state)


def require_own_weights(role: str, function: Callable[..., Any]) -> None:
    """Raise `ConfigurationError` if a function reaches a module other than by its arguments."""
    if held := _held_modules(function):
        raise ConfigurationError(
            f"{role} must reach its weights through its first argument, "
            f"but holds on to the module {held[0]!r}"
        )


def _held_modules(function: Callable[..., Any]) -> list[str]:
    """Return the modules a function reaches other than by its arguments, by name."""
    if isinstance(function, nn.Module):
        return [type(function).__name__]
    if isinstance(function, functools.partial):
        given = [*function.args, *function.keywords.values()]
        held = [type(value).__name__ for value in given if isinstance(value, nn.Module)]
        return held + _held_modules(function.func)
    if inspect.ismethod(function):
        return (
            [type(function.__self__).__name__] if isinstance(function.__self__, nn.Module) else []
        )
    if not inspect.isfunction(function):
        return []
    reached = dict(inspect.getclosurevars(function).nonlocals)
    # By instruction, since names alone cannot tell a global from an attribute called the same.
    for step in dis.get_instructions(function):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            reached[step.argval] = function.__globals__.get(step.argval)
    return [name for name, value in reached.items() if isinstance(value, nn.Module)]


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
