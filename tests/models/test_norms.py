"""GroupNorm of training: PyTorch's function and gradients, in the other memory order."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from deqcert.models import build, jacobian_penalty
from deqcert.models.norms import GroupNorm, order_for_training

pytest.importorskip("numba", reason="the kernels are compiled by numba")

SHAPES = [(2, 8, 5, 7), (3, 40, 4, 4), (17, 16, 1, 3), (33, 12, 6, 2)]


def images(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3.0 + torch.randn(shape, generator=generator)


def norm_of(channels: int, *, affine: bool = True, seed: int = 1) -> GroupNorm:
    norm = GroupNorm(channels // 4, channels, affine=affine).train()
    if affine:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            norm.weight.copy_(torch.randn(channels, generator=generator))
            norm.bias.copy_(torch.randn(channels, generator=generator))
    return norm


def used(y: Tensor) -> bool:
    return type(y.grad_fn).__name__ == "_GroupNormBackward"


def answers(norm: GroupNorm, x: Tensor, *, relu: bool) -> tuple[bool, list[Tensor]]:
    """Return whether the fast form ran, and result and gradients for a fixed cotangent."""
    x = x.detach().requires_grad_()
    y = norm(x, relu=relu)
    cotangent = images(tuple(y.shape), seed=2).to(y.dtype)
    inputs = [x, *norm.parameters()]
    return used(y), [y, *torch.autograd.grad(y, inputs, cotangent)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_result_and_gradients_are_those_of_pytorch(
    shape: tuple[int, ...], relu: bool, affine: bool
) -> None:
    norm, x = norm_of(shape[1], affine=affine), images(shape)
    fast, found = answers(norm, order_for_training(x, 8), relu=relu)
    plain, wanted = answers(norm.double(), x.double().contiguous(), relu=relu)
    assert fast
    assert not plain
    for got, want in zip(found, wanted, strict=True):
        scale = float(want.detach().abs().max())
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=2e-6 * scale)


def test_half_precision_is_rounded_once() -> None:
    norm, x = norm_of(16), images((4, 16, 6, 6)).bfloat16()
    _, found = answers(norm, order_for_training(x, 8), relu=True)
    _, wanted = answers(norm, order_for_training(x.float(), 8), relu=True)
    assert found[0].dtype == found[1].dtype == torch.bfloat16
    torch.testing.assert_close(found[0], wanted[0].bfloat16(), rtol=0, atol=0)
    torch.testing.assert_close(found[1].float(), wanted[1], rtol=2e-2, atol=1e-2)
    assert found[2].dtype == torch.float32


def test_result_keeps_the_memory_order() -> None:
    x = order_for_training(images((2, 8, 4, 4)), 8)
    y = norm_of(8)(x)
    assert y.stride() == x.stride()


@pytest.mark.parametrize("relu", [False, True])
def test_gradient_of_the_gradient(relu: bool) -> None:
    norm, x = norm_of(8), images((2, 8, 3, 3))

    def second(x: Tensor) -> tuple[bool, Tensor]:
        x = x.detach().requires_grad_()
        y = norm(x, relu=relu)
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return used(y), torch.autograd.grad(g.square().sum(), x)[0]

    fast, found = second(order_for_training(x, 8))
    plain, wanted = second(x)
    assert fast
    assert not plain
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def test_threads_change_no_bit() -> None:
    norm, x = norm_of(8), order_for_training(images((50, 8, 4, 4)), 8)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        _, alone = answers(norm, x, relu=True)
        torch.set_num_threads(2)
        _, shared = answers(norm, x, relu=True)
    finally:
        torch.set_num_threads(before)
    # The sums over rows are grouped by thread, so the last bits of those may differ.
    assert torch.equal(alone[0], shared[0])
    assert torch.equal(alone[1], shared[1])
    torch.testing.assert_close(alone[2:], shared[2:])


def test_nan_stays_with_its_row() -> None:
    x = order_for_training(images((3, 8, 4, 4)), 8)
    x[1, 0, 0, 0] = torch.nan
    _, found = answers(norm_of(8), x, relu=True)
    for part in found[:2]:
        assert bool(part[0].isfinite().all() & part[2].isfinite().all())
        assert not bool(part[1].isfinite().all())


def test_a_model_trains_in_it_and_is_not_evaluated_in_it() -> None:
    model = build("mdeq-digits", channels=(8, 16), groups=8, dropout=0.0)
    x = torch.rand(4, *model.input_shape, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        model.train(training)
        injection = model.inject(x)
        state = model.initial_state(injection)
        state = model.cell(model.first_step(state, injection), injection)
        assert used(state[0]) == training
    assert bool(jacobian_penalty(model, state, injection, generator=torch.Generator()).isfinite())


@pytest.mark.parametrize(("channels", "fast"), [((8, 16), True), ((16, 16), False)])
def test_wide_models_keep_the_usual_order(channels: tuple[int, ...], fast: bool) -> None:
    model = build("mdeq-digits", channels=channels, groups=8, dropout=0.0).train()
    injection = model.inject(torch.rand(4, *model.input_shape))
    state = model.first_step(model.initial_state(injection), injection)
    assert used(model.cell(state, injection)[0]) == fast


def test_gradients_of_a_model_are_those_of_the_usual_memory_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def gradients() -> list[Tensor]:
        torch.manual_seed(0)
        model = build("mdeq-digits", channels=(8, 16), groups=8, dropout=0.0).train()
        injection = model.inject(x)
        state = model.first_step(model.initial_state(injection), injection)
        logits = model.classify(model.cell(state, injection))
        loss = F.cross_entropy(logits, torch.arange(8))
        return list(torch.autograd.grad(loss, list(model.parameters())))

    found = gradients()
    monkeypatch.setattr("deqcert.models.mdeq.order_for_training", lambda part, width: part)
    for got, want in zip(found, gradients(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5)
