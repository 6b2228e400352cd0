"""Gradients at a fixed point: implicit differentiation, unrolling, phantom steps.

With z = f(z, theta) and J = df/dz at z, a loss gradient g with respect to z becomes
u' df/dtheta with u = g + J'u (Bai, Kolter, Koltun 2019), a linear fixed-point problem for the same
solvers. Theta are the injection's tensors and the parameters of the model, passed explicitly, so
that the backward pass can itself be differentiated once (Jacobian regularisation, gradient
penalties).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deqcert.errors import ConfigurationError, unknown_name
from deqcert.models.adjoint import Problem, fixed_point
from deqcert.models.rows import training_sizes
from deqcert.models.trees import leaves
from deqcert.solvers import SolverSpec, State, map_tree, solve

if TYPE_CHECKING:
    from deqcert.models.equilibrium import EquilibriumModel

METHODS = ("implicit", "unrolled", "phantom")


@dataclass(frozen=True, kw_only=True)
class GradientSpec:
    """How gradients are taken through an equilibrium.

    Attributes:
        method: ``implicit``: exact at the fixed point, memory of one cell; ``unrolled``:
            backpropagation through `steps` steps from the start, without a solver; ``phantom``:
            backpropagation through `steps` steps from the solved, detached fixed point (Geng et
            al. 2021).
        solver: Solver of the backward system of ``implicit``.
        steps: Steps of ``unrolled`` and ``phantom``, at least 1.
        damping: Share of the old state that a step of ``unrolled`` or ``phantom`` keeps, in [0, 1).

    Raises:
        UnknownNameError: Another method.
        ConfigurationError: `steps` or `damping` out of range.
    """

    method: str = "implicit"
    solver: SolverSpec = field(default_factory=lambda: SolverSpec.parse("anderson:20:1e-4"))
    steps: int = 8
    damping: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown_name("gradient method", self.method, METHODS)
        if self.steps < 1:
            raise ConfigurationError(f"gradient steps must be at least 1, but got {self.steps}")
        if not 0.0 <= self.damping < 1.0:
            raise ConfigurationError(f"damping must lie in [0, 1), but got {self.damping}")
        # Strings are accepted for convenience; the frozen field always holds the parsed form.
        solver = SolverSpec.parse(self.solver, within="the solver of a gradient")
        object.__setattr__(self, "solver", solver)


def equilibrium(
    model: EquilibriumModel,
    injection: Any,
    *,
    state0: State | None = None,
    solver: SolverSpec | str | None = None,
    gradient: GradientSpec | None = None,
) -> State:
    """Return the fixed point of `model.cell(., injection)`, attached to the graph.

    Args:
        model: The model.
        injection: What `model.inject` returned; gradients flow back into it.
        state0: Start; None means the model's own. No gradient flows into it.
        solver: Forward solver; None means the model's own.
        gradient: How gradients are taken; None means the model's own way.
    """
    gradient = model.gradient if gradient is None else gradient
    spec = model.solver if solver is None else SolverSpec.parse(solver)
    start = _detached(model.initial_state(injection) if state0 is None else state0)
    if gradient.method == "implicit":
        return fixed_point(Problem(model, injection, start, spec, gradient.solver))
    if gradient.method == "phantom":
        sizes = training_sizes(len(leaves(start)[0]))
        start = solve(model.cell, start, _detached(injection), spec=spec, sizes=sizes).state
    return iterates(model, injection, gradient.steps, state0=start, damping=gradient.damping)[-1]


def iterates(
    model: EquilibriumModel,
    injection: Any,
    steps: int,
    *,
    state0: State | None = None,
    damping: float = 0.0,
) -> list[State]:
    """Return the states after 1, ..., `steps` Picard steps, attached to the graph.

    For losses on short solves and for unrolled pre-training (PAPER 4). `injection` is what
    `model.inject` returned, so that it can be shared with `equilibrium` (one pass through the
    stem, one set of dropout masks).
    """
    if steps < 1:
        raise ConfigurationError(f"steps must be at least 1, but got {steps}")
    state = model.initial_state(injection) if state0 is None else state0
    step = model.first_step if state0 is None else model.cell
    states = []
    for _ in range(steps):
        state = _mix(state, step(state, injection), damping)
        states.append(state)
        step = model.cell
    return states


def jacobian_penalty(
    model: EquilibriumModel,
    state: State,  # (batch, ...) or a tuple of such
    injection: Any,
    *,
    probes: int = 2,
    generator: torch.Generator | None = None,
) -> Tensor:  # ()
    """Return ||v'J||^2 averaged over Gaussian v and divided by batch times state size.

    J is the Jacobian of the cell at `state`, so this estimates ||J||_F^2 per state entry
    (Hutchinson; Bai, Koltun, Kolter 2021, PAPER 4). Differentiable with respect to the
    parameters, the injection and, where it is attached, the state.

    Args:
        model: The model.
        state: Where to take J, usually the fixed point.
        injection: What `model.inject` returned.
        probes: Gaussian vectors, at least 1.
        generator: Source of the vectors; None means PyTorch's global one.
    """
    if probes < 1:
        raise ConfigurationError(f"probes must be at least 1, but got {probes}")
    with torch.enable_grad():
        # An alias: the derivative with respect to it stops here, and does not run on through the
        # solve that `state` came from.
        at = [
            part.view_as(part) if part.requires_grad else part.detach().requires_grad_()
            for part in leaves(state)
        ]
        out = leaves(model.cell(at[0] if isinstance(state, Tensor) else tuple(at), injection))
        total = torch.zeros((), dtype=at[0].dtype, device=at[0].device)
        for _ in range(probes):
            v = [
                torch.randn(part.shape, generator=generator, dtype=part.dtype, device=part.device)
                for part in out
            ]
            pulled = torch.autograd.grad(out, at, v, create_graph=True, allow_unused=True)
            for part in pulled:
                total = total if part is None else total + part.square().sum()
    return total / (probes * sum(part.numel() for part in at))


def _mix(old: State, new: State, damping: float) -> State:
    if damping == 0.0:
        return new
    if isinstance(new, Tensor):
        return torch.lerp(new, leaves(old)[0], damping)
    return tuple(torch.lerp(n, o, damping) for n, o in zip(new, old, strict=True))


def _detached(tree: Any) -> Any:
    return map_tree(torch.Tensor.detach, tree)
