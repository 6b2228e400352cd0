"""DEQs written with torchdeq (Geng, Kolter 2023), made into equilibrium models.

The function, its weights and its normalisation are torchdeq's; the solve is ours, since torchdeq
stops a batch by its largest residual: there a row's label depends on its neighbours (THEORY 1.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deqcert.errors import ConfigurationError, DeqcertError
from deqcert.models.equilibrium import EquilibriumModel
from deqcert.models.implicit import GradientSpec
from deqcert.models.wrap import require_own_weights
from deqcert.solvers import SolverSpec, State

INSTALL_HINT = 'from_torchdeq needs torchdeq: pip install "deqcert[torchdeq]"'
# torchdeq's solver functions, and what solves likewise here; each counts cell evaluations.
SOLVERS = {
    "anderson_solver": "anderson",
    "broyden_solver": "broyden",
    "fixed_point_iter": "picard",
    "simple_fixed_point_iter": "picard",
}


class MissingTorchdeqError(DeqcertError):
    """torchdeq is not installed; the message says how to get it."""


def from_torchdeq(
    module: nn.Module,
    *,
    inject: Callable[[Any, Tensor], Any],
    initial_state: Callable[[Any, Any], Any],
    func: Callable[[Any, Any], Callable[..., Any]],
    classify: Callable[[Any, Any], Tensor],
    num_classes: int,
    input_shape: tuple[int, int, int],
    deq: nn.Module | None = None,
    solver: SolverSpec | str | None = None,
    gradient: GradientSpec | None = None,
) -> EquilibriumModel:
    """Return a DEQ written with torchdeq as an equilibrium model, solved by our solvers.

    A torchdeq forward pass ``z_out, info = net.deq(f, z0)`` falls into four functions; each is
    given `module` first, and must reach weights through it alone (see `from_functions`):

    >>> model = from_torchdeq(  # doctest: +SKIP
    ...     net,
    ...     inject=lambda net, x: net.encode(x),
    ...     initial_state=lambda net, u: torch.zeros_like(u),
    ...     func=lambda net, u: lambda z: net.layer(z, u),  # what net.deq is given
    ...     classify=lambda net, z: net.head(z),  # of z_out[-1]
    ...     num_classes=10,
    ...     input_shape=(3, 32, 32),
    ... )

    Solver, steps and tolerance are those of ``net.deq`` in evaluation, with differences that the
    certificate needs: each row stops at its own residual, the last iterate is taken instead of the
    best one of the batch, and an absolute tolerance (torchdeq's default) becomes none at all: every
    row takes all steps. Weight and spectral normalisation of torchdeq are renewed at every solve,
    as ``reset_norm`` does, and folded for inference.

    Args:
        module: Holds all weights.
        inject: (module, images (batch, C, H, W)) -> injection, a pytree of batch-first tensors.
        initial_state: (module, injection) -> start z0: a tensor, or a tuple or list of them.
        func: (module, injection) -> the function torchdeq would solve: of as many tensors as the
            start has, returning as many.
        classify: (module, fixed point, a tensor or a list as in ``z_out[-1]``) -> logits.
        num_classes: Classes, at least 2.
        input_shape: (C, H, W).
        deq: What ``get_deq`` made; None finds the only one in `module`.
        solver: Default solver; None takes it from `deq`.
        gradient: How gradients are taken; None means implicit.

    Raises:
        MissingTorchdeqError: torchdeq is not installed.
        ConfigurationError: A function holds on to a module of its own; no solver is given and
            none can be read off; or, in training, a mask of torchdeq's dropout would be drawn
            inside the cell.
    """
    _torchdeq()
    functions = {
        "inject": inject, "initial_state": initial_state, "func": func, "classify": classify
    }  # fmt: skip
    for role, function in functions.items():
        require_own_weights(role, function)
    return _TorchDEQ(
        module,
        functions,
        num_classes=num_classes,
        input_shape=input_shape,
        solver=_solver_of(module, deq) if solver is None else solver,
        gradient=gradient,
    )


def _torchdeq() -> Any:
    """Return torchdeq, or say how to get it."""
    try:
        import torchdeq
    except ImportError as error:
        raise MissingTorchdeqError(INSTALL_HINT) from error
    return torchdeq


def _solver_of(module: nn.Module, deq: nn.Module | None) -> SolverSpec:
    """Return what a DEQ of torchdeq does in evaluation, as far as a certificate allows it."""
    from torchdeq.core import DEQBase

    found = [part for part in module.modules() if isinstance(part, DEQBase)]
    if deq is None and len(found) != 1:
        raise ConfigurationError(
            f"the module holds {len(found)} DEQs of torchdeq; say which by deq=, or give solver="
        )
    chosen: Any = found[0] if deq is None else deq
    name = getattr(getattr(chosen, "f_solver", None), "__name__", type(chosen).__name__)
    if name not in SOLVERS:
        raise ConfigurationError(
            f"torchdeq's solver {name!r} has no counterpart here; give solver=, such as anderson:30"
        )
    tol = float(chosen.f_tol) if chosen.f_stop_mode == "rel" else 0.0
    return SolverSpec(SOLVERS[name], int(chosen.eval_f_max_iter), tol)


class _Normed(nn.Module):
    """A module with normalisations of torchdeq, which an inference copy folds into its weights."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def fold(self) -> nn.Module:
        """Return the module with plain weights."""
        _torchdeq().remove_norm(self.net)
        return self.net


class _TorchDEQ(EquilibriumModel):
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
        normed = any(_norm_of(part) is not None for part in module.modules())
        self.module = _Normed(module) if normed else module
        self._functions = functions

    @property
    def _net(self) -> nn.Module:
        return self.module.net if isinstance(self.module, _Normed) else self.module

    def inject(self, x: Tensor) -> Any:
        if self.training:
            _refuse_dropout(self._net)
        if isinstance(self.module, _Normed):
            _torchdeq().reset_norm(self._net)
        return self._functions["inject"](self._net, x)

    def initial_state(self, injection: Any) -> State:
        return _state(self._functions["initial_state"](self._net, injection))

    def cell(self, state: Any, injection: Any) -> State:
        func = self._functions["func"](self._net, injection)
        return _state(func(*state) if isinstance(state, tuple) else func(state))

    def classify(self, state: Any) -> Tensor:
        found = list(state) if isinstance(state, tuple) else state
        return self._functions["classify"](self._net, found)

    def __getstate__(self) -> dict[str, Any]:
        # Normalised weights are attributes with a graph behind them, which neither copies nor
        # pickles; the next solve makes them anew.
        for part in self.modules():
            for name in getattr(_norm_of(part), "names", ()):
                setattr(part, name, getattr(part, name).detach())
        return self.__dict__.copy()


def _state(value: Any) -> State:
    """Return a state in our form: a tensor or a tuple."""
    return value if torch.is_tensor(value) else tuple(value)


def _norm_of(part: nn.Module) -> Any:
    """Return the normalisation torchdeq put on a module, or None."""
    return getattr(part, "_deq_norm", None)


def _refuse_dropout(net: nn.Module) -> None:
    """Refuse masks that torchdeq would draw inside the cell: they do not follow a row."""
    for name, part in net.named_modules():
        drawn = type(part).__module__ == "torchdeq.dropout" and getattr(part, "dropout", 0.0) > 0
        if drawn and part.training:
            raise ConfigurationError(
                f"{name} draws a dropout mask inside the cell; train with torchdeq, or set its "
                "dropout to 0"
            )
