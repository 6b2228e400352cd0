"""Gradients at the fixed point against finite differences, unrolling and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from deqcert.errors import ConfigurationError, UnknownNameError
from deqcert.models import GradientSpec, equilibrium, iterates, jacobian_penalty
from deqcert.solvers import SolverSpec, solve
from tests.models.made import TanhDEQ

EXACT = GradientSpec(solver=SolverSpec.parse("picard:80:1e-15"))


def _inputs(rows: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(rows, 1, 1, 3, generator=generator, dtype=torch.float64, requires_grad=True)


def _model(pair: bool = False) -> TanhDEQ:
    model = TanhDEQ(pair=pair)
    model.gradient = EXACT
    return model


def _of_inputs(model: TanhDEQ):
    """The logits as a function of the image and all parameters, for the checkers."""

    def function(x, *parameters):
        del parameters  # perturbed in place, read through the model
        return model(x)

    return function


@pytest.mark.parametrize("pair", [False, True])
def test_gradients_equal_finite_differences(pair):
    model = _model(pair)
    assert gradcheck(_of_inputs(model), (_inputs(2), *model.parameters()), atol=1e-7)


@pytest.mark.parametrize("backward", ["anderson:20:1e-4", "broyden:20:1e-8", "picard:40"])
def test_every_solver_serves_the_backward_pass(backward):
    model, x = _model(), _inputs()
    wanted = [x, *model.parameters()]
    exact = torch.autograd.grad(model(x).square().sum(), wanted)
    model.gradient = GradientSpec(solver=SolverSpec.parse(backward))
    found = torch.autograd.grad(model(x).square().sum(), wanted)
    for a, b in zip(found, exact, strict=True):
        assert float((a - b).norm() / b.norm()) < 5e-3


@pytest.mark.parametrize("pair", [False, True])
def test_second_derivatives_equal_finite_differences_of_first_ones(pair):
    model = _model(pair)
    inputs = (_inputs(1 + pair), *model.parameters())
    # One full check of every entry; for the pair, random projections of them (it is slow).
    assert gradgradcheck(_of_inputs(model), inputs, atol=1e-6, fast_mode=pair)


@pytest.mark.parametrize("pair", [False, True])
def test_gradients_equal_those_of_a_long_unrolling(pair):
    model, x = _model(pair), _inputs()
    wanted = [x, *model.parameters()]
    implicit = torch.autograd.grad(model(x).square().sum(), wanted)
    model.gradient = GradientSpec(method="unrolled", steps=100)
    unrolled = torch.autograd.grad(model(x).square().sum(), wanted)
    for a, b in zip(implicit, unrolled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_phantom_gradients_approach_implicit_ones():
    model, x = _model(), _inputs()
    exact = torch.autograd.grad(model(x).square().sum(), x)[0]
    errors = []
    for steps in (1, 4, 16, 64):
        model.gradient = GradientSpec(method="phantom", steps=steps, damping=0.2)
        phantom = torch.autograd.grad(model(x).square().sum(), x)[0]
        errors.append(float((phantom - exact).norm() / exact.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-2
    assert errors[-1] < 1e-8


def test_all_methods_give_the_same_value():
    model, x = _model(), _inputs()
    values = []
    for method, steps in (("implicit", 1), ("unrolled", 100), ("phantom", 3)):
        model.gradient = GradientSpec(method=method, steps=steps)
        values.append(model(x))
    torch.testing.assert_close(values[1], values[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(values[2], values[0], rtol=0, atol=1e-12)


def test_third_derivatives_refuse_loudly():
    model, x = _model(), _inputs(1)
    first = torch.autograd.grad(model(x).sum(), x, create_graph=True)[0]
    second = torch.autograd.grad(first.square().sum(), x, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="third derivatives"):
        torch.autograd.grad(second.sum(), x)


def test_hessian_of_a_linear_equilibrium_is_the_closed_form():
    # z = A z + B x, loss |C z|^2 / 2: Hessian (C (I - A)^-1 B)' (C (I - A)^-1 B).
    model = _model()
    model.cell = lambda z, injection: z @ model.a.T + injection["top"]
    gain = model.c @ torch.linalg.inv(torch.eye(4, dtype=torch.float64) - model.a) @ model.b
    x = _inputs(1)
    first = torch.autograd.grad(0.5 * model(x).square().sum(), x, create_graph=True)[0].flatten()
    hessian = torch.stack(
        [torch.autograd.grad(first[k], x, retain_graph=True)[0].flatten() for k in range(3)]
    )
    torch.testing.assert_close(hessian, gain.T @ gain, rtol=1e-10, atol=1e-12)


def test_small_loss_gradients_still_converge_fast():
    # The ridge of Anderson mixing is absolute: without scaling, gradients of size 1e-6 would meet
    # a solver that hardly accelerates.
    model, x = _model(), _inputs()
    model.gradient = GradientSpec(solver=SolverSpec.parse("anderson:9"))
    exact = _model()
    for factor in (1.0, 1e-8):
        loss, wanted = factor * model(x).sum(), factor * exact(x).sum()
        ours, truth = torch.autograd.grad(loss, x)[0], torch.autograd.grad(wanted, x)[0]
        assert float((ours - truth).norm() / truth.norm()) < 1e-3


def test_rows_without_gradient_get_exactly_zero():
    model, x = _model(), _inputs(3)
    grad = torch.autograd.grad(model(x)[1].sum(), x)[0]
    assert bool((grad[[0, 2]] == 0).all())
    assert bool((grad[1] != 0).any())


def test_frozen_parameters_get_no_gradient_and_the_rest_still_do():
    model, x = _model(), _inputs()
    model.a.requires_grad_(False)
    model(x).sum().backward()
    assert model.a.grad is None
    assert model.b.grad is not None
    assert x.grad is not None


def test_changing_a_weight_between_forward_and_backward_is_noticed():
    model, x = _model(), _inputs()
    loss = model(x).sum()
    with torch.no_grad():
        model.a.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_iterates_are_picard_steps_with_gradients():
    model, x = _model(), _inputs()
    injection = model.inject(x)
    states = iterates(model, injection, 4)
    assert len(states) == 4
    solved = solve(model.cell, torch.zeros(3, 4).double(), injection, spec="picard:3").state
    torch.testing.assert_close(states[2].detach(), solved)
    assert all(state.requires_grad for state in states)
    damped = iterates(model, injection, 2, damping=0.25)
    first = 0.75 * model.cell(torch.zeros(3, 4).double(), injection)
    torch.testing.assert_close(damped[0], first)
    torch.testing.assert_close(damped[1], 0.75 * model.cell(first, injection) + 0.25 * first)


def test_equilibrium_shares_an_injection_and_takes_a_start():
    model, x = _model(), _inputs()
    injection = model.inject(x)
    cold = equilibrium(model, injection)
    warm = equilibrium(model, injection, state0=cold, solver="picard:1")
    torch.testing.assert_close(cold, warm, rtol=0, atol=1e-12)
    with torch.no_grad():
        assert not equilibrium(model, model.inject(x)).requires_grad


@pytest.mark.parametrize("pair", [False, True])
def test_jacobian_penalty_estimates_the_frobenius_norm(pair):
    model, x = _model(pair), _inputs(2)
    injection = {key: value.detach() for key, value in model.inject(x).items()}
    state = equilibrium(model, injection)
    z = torch.cat([part.flatten(1) for part in (state if pair else (state,))], dim=1)
    slope = (1 - z.square())[:, :, None] * model.a
    exact = slope.square().sum() / z.numel()
    generator = torch.Generator().manual_seed(0)
    found = jacobian_penalty(model, state, injection, probes=4000, generator=generator)
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.0)


def test_jacobian_penalty_is_differentiable_through_the_equilibrium():
    def penalty(x, *parameters):
        del parameters
        injection = model.inject(x)
        generator = torch.Generator().manual_seed(5)
        state = equilibrium(model, injection)
        return jacobian_penalty(model, state, injection, probes=2, generator=generator)

    model = _model()
    model.c.requires_grad_(False)
    assert gradcheck(penalty, (_inputs(2), model.a, model.b), atol=1e-7)


def test_settings_are_checked_and_strings_accepted():
    assert GradientSpec(solver="picard:5").solver == SolverSpec.parse("picard:5")  # pyright: ignore
    with pytest.raises(UnknownNameError, match="did you mean 'unrolled'"):
        GradientSpec(method="unroled")
    with pytest.raises(ConfigurationError, match="at least 1, but got 0"):
        GradientSpec(steps=0)
    with pytest.raises(ConfigurationError, match=r"\[0, 1\), but got 1.0"):
        GradientSpec(damping=1.0)
    with pytest.raises(ConfigurationError, match="probes must be at least 1"):
        jacobian_penalty(_model(), torch.zeros(1, 4), None, probes=0)
    with pytest.raises(ConfigurationError, match="steps must be at least 1"):
        iterates(_model(), None, 0)
