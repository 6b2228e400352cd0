"""The fixed point as autograd functions: forward solve, adjoint solve, and its derivative."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.func import functional_call

from deqcert.models.rows import training_sizes
from deqcert.models.trees import leaves, with_leaves
from deqcert.solvers import SolverSpec, State, solve

if TYPE_CHECKING:
    from deqcert.models.equilibrium import EquilibriumModel


class Problem:
    """One fixed-point problem: its cell as a function of state leaves and theta leaves.

    Theta is the list of the injection's tensors followed by the trainable parameters.
    """

    def __init__(
        self,
        model: EquilibriumModel,
        injection: Any,
        state0: State,
        forward: SolverSpec,
        backward: SolverSpec,
    ) -> None:
        self.state0 = state0
        self.forward = forward
        self.backward = backward
        self.parts = len(leaves(state0))
        self._injection = injection
        self._injected = leaves(injection)
        self._cell = _Cell(model)
        self._named = {n: p for n, p in self._cell.named_parameters() if p.requires_grad}

    @property
    def theta(self) -> list[Tensor]:
        """What the fixed point depends on."""
        return [*self._injected, *self._named.values()]

    def solve(self) -> list[Tensor]:
        """Return the fixed point, detached."""
        injection = with_leaves(self._injection, [part.detach() for part in self._injected])
        sizes = training_sizes(len(leaves(self.state0)[0]))
        solution = solve(self._cell, self.state0, injection, spec=self.forward, sizes=sizes)
        return leaves(solution.state)

    def apply(self, z: Sequence[Tensor], theta: Sequence[Tensor]) -> list[Tensor]:
        """Return the leaves of f(z, theta), differentiable in all of them."""
        count = len(self._injected)
        injection = with_leaves(self._injection, theta[:count])
        values = dict(zip(self._named, theta[count:], strict=True))
        return leaves(functional_call(self._cell, values, (self.pack(z), injection)))

    def pack(self, z: Sequence[Tensor]) -> State:
        """Return state leaves as a state."""
        return z[0] if isinstance(self.state0, Tensor) else tuple(z)

    def linear_solve(
        self,
        push: Callable[[Sequence[Tensor]], list[Tensor]],
        right: Sequence[Tensor],
    ) -> list[Tensor]:
        """Solve u = right + push(u) for a `push` that is linear and acts row by row."""

        def step(u: State, constant: Any) -> State:
            pushed = push(leaves(u))
            return self.pack([p + c for p, c in zip(pushed, leaves(constant), strict=True)])

        # Anderson's ridge is absolute, made for states of size one per entry. Loss gradients are
        # far smaller; unscaled, the ridge would drown them and the solve would hardly accelerate.
        scale = _row_scale(right)
        constant = self.pack([p.detach() / _over(scale, p) for p in right])
        # One batch size: the recorded graph is that of the whole batch, so no row may drop out.
        sizes = (len(scale),)
        solution = solve(step, constant, constant, spec=self.backward, sizes=sizes)
        return [p * _over(scale, p) for p in leaves(solution.state)]


def fixed_point(problem: Problem) -> State:
    """Return the solved state, attached to the graph by implicit differentiation."""
    theta = problem.theta
    if not (torch.is_grad_enabled() and any(part.requires_grad for part in theta)):
        return problem.pack(problem.solve())
    return problem.pack(_Solve.apply(problem, *theta))  # pyright: ignore[reportArgumentType]


class _Cell(nn.Module):
    """The cell as a module of its own, so that `functional_call` can swap its parameters."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, state: State, injection: Any) -> State:
        return self.model.cell(state, injection)  # pyright: ignore[reportCallIssue]


class _Solve(torch.autograd.Function):
    """theta -> z."""

    @staticmethod
    def forward(ctx: Any, problem: Problem, *theta: Tensor) -> tuple[Tensor, ...]:
        # A cell may hand back its own input (a constant cell); an output must be a new tensor.
        z = tuple(part.clone() for part in problem.solve())
        ctx.problem = problem
        ctx.save_for_backward(*z, *theta)
        return z

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor | None, ...]:
        problem: Problem = ctx.problem
        z, theta = _split(ctx.saved_tensors, problem.parts)
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # create_graph: this backward pass will be differentiated
            u = _Adjoint.apply(problem, *g, *z, *theta)
            # Aliases of theta: z depends on theta too, and this is the partial derivative alone.
            alias = [part.view_as(part) for part in theta]
            return None, *_pull(problem.apply(z, alias), alias, u, needed, create_graph=True)
        out, at, theta_at = _linearise(problem, z, theta, needed)
        u = problem.linear_solve(lambda v: _pull(out, at, v), g)
        return None, *_pull(out, theta_at, u, needed)


class _Adjoint(torch.autograd.Function):
    """(g, z, theta) -> u with u = g + J(z, theta)'u."""

    @staticmethod
    def forward(ctx: Any, problem: Problem, *tensors: Tensor) -> tuple[Tensor, ...]:
        g, rest = _split(tensors, problem.parts)
        z, theta = _split(rest, problem.parts)
        out, at, _ = _linearise(problem, z, theta, [False] * len(theta))
        u = tuple(part.clone() for part in problem.linear_solve(lambda v: _pull(out, at, v), g))
        ctx.problem = problem
        ctx.save_for_backward(*u, *z, *theta)
        return u

    @staticmethod
    def backward(ctx: Any, *w: Tensor) -> tuple[Tensor | None, ...]:
        problem: Problem = ctx.problem
        u, rest = _split(ctx.saved_tensors, problem.parts)
        z, theta = _split(rest, problem.parts)
        needed = ctx.needs_input_grad[1 + 2 * problem.parts :]
        out, at, theta_at = _linearise(problem, z, theta, needed)
        with torch.enable_grad():
            dual = [part.detach().requires_grad_() for part in u]
            pulled = _pull(out, at, dual, create_graph=True)  # J'u, linear in u
        # The transposed system v = w + J v; J v is the derivative of J'u with respect to u.
        v = problem.linear_solve(lambda x: _pull(pulled, dual, x), w)
        # Then d<u, J v> with respect to z and theta.
        slopes = _pull(pulled, [*at, *theta_at], v, [True] * len(at) + list(needed))
        grads = [*v, *slopes]
        if torch.is_grad_enabled():
            grads = _refuse_third(grads, [*w, *ctx.saved_tensors])
        return None, *grads


class _Refuse(torch.autograd.Function):
    """Identity whose backward pass refuses."""

    @staticmethod
    def forward(ctx: FunctionCtx, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in tensors[:count])

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError(
            "third derivatives through an equilibrium are not available; "
            "use GradientSpec(method='unrolled')"
        )


def _refuse_third(grads: Sequence[Tensor | None], origins: Sequence[Tensor]) -> list[Tensor | None]:
    """Tie gradients to what they came from, so that differentiating them raises, not gives zero."""
    present = [part for part in grads if part is not None]
    tied = iter(_Refuse.apply(len(present), *present, *origins))  # pyright: ignore
    return [None if part is None else next(tied) for part in grads]


def _linearise(
    problem: Problem,
    z: Sequence[Tensor],
    theta: Sequence[Tensor],
    needed: Sequence[bool],
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:  # f(z, theta), z, theta; the latter as leaves
    with torch.enable_grad():
        at = [part.detach().requires_grad_() for part in z]
        theta_at = [
            part.detach().requires_grad_(need) for part, need in zip(theta, needed, strict=True)
        ]
        return problem.apply(at, theta_at), at, theta_at


def _pull(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    vectors: Sequence[Tensor],
    needed: Sequence[bool] | None = None,
    *,
    create_graph: bool = False,
) -> list[Any]:
    """Return vectors' d(outputs)/d(inputs); zeros where unconnected, None where not needed."""
    live = [k for k, part in enumerate(outputs) if part.requires_grad]
    asked = [k for k in range(len(inputs)) if needed is None or needed[k]]
    found: Sequence[Tensor | None] = [None] * len(asked)
    if live and asked:
        found = torch.autograd.grad(
            [outputs[k] for k in live],
            [inputs[k] for k in asked],
            [vectors[k] for k in live],
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
        )
    result: list[Tensor | None] = [None] * len(inputs)
    for k, part in zip(asked, found, strict=True):
        result[k] = torch.zeros_like(inputs[k]) if part is None else part
    return result


def _row_scale(parts: Sequence[Tensor]) -> Tensor:  # each (batch, ...) -> (batch,)
    """Return the root mean square of each row over all parts, 1 for rows of zeros."""
    squares = torch.stack([part.detach().flatten(1).square().sum(1) for part in parts]).sum(0)
    scale = (squares / sum(part[0].numel() for part in parts)).sqrt()
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _over(scale: Tensor, part: Tensor) -> Tensor:  # (batch,) -> (batch, 1, ...) beside `part`
    return scale.view(-1, *[1] * (part.ndim - 1))


def _split(tensors: Sequence[Tensor], count: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    return tensors[:count], tensors[count:]
