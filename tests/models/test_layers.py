"""Layers and their folded forms."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from deqcert.models import inference_copy, solve_rows
from deqcert.models.layers import (
    ConvBatchNorm,
    Logits,
    WeightNormConv2d,
    start_plain_convolutions,
)
from tests.models.made import tiny_mdeq


def _norm(part: nn.BatchNorm2d) -> None:
    nn.init.uniform_(part.running_mean, -1.0, 1.0)  # pyright: ignore[reportArgumentType]
    nn.init.uniform_(part.running_var, 0.5, 2.0)  # pyright: ignore[reportArgumentType]
    if part.affine:
        nn.init.uniform_(part.weight, 0.5, 1.5)
        nn.init.uniform_(part.bias, -1.0, 1.0)


def test_weight_norm_agrees_with_pytorch_in_value_and_gradient():
    ours = WeightNormConv2d(3, 5, 3).double()
    theirs = weight_norm(nn.Conv2d(3, 5, 3, padding=1, bias=False)).double()
    scale = torch.rand(5, 1, 1, 1).double() + 0.5
    with torch.no_grad():
        ours.weight_g.copy_(scale)
        theirs.parametrizations.weight.original0.copy_(scale)
        theirs.parametrizations.weight.original1.copy_(ours.weight_v)
    x = torch.randn(2, 3, 6, 6).double()
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    original = theirs.parametrizations.weight
    torch.testing.assert_close(ours.weight_g.grad, original.original0.grad)
    torch.testing.assert_close(ours.weight_v.grad, original.original1.grad)


def test_weight_norm_starts_at_the_default_weight():
    torch.manual_seed(4)
    plain = nn.Conv2d(3, 5, 3)
    torch.manual_seed(4)
    torch.testing.assert_close(WeightNormConv2d(3, 5, 3).weight, plain.weight)


def test_weight_norm_copies_are_whole_and_independent():
    # Hook-based weight norm breaks exactly here: the derived tensor is not a leaf.
    layer, x = WeightNormConv2d(3, 5, 3), torch.randn(1, 3, 4, 4)
    layer(x).sum().backward()
    for made in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(made(x), layer(x))
        with torch.no_grad():
            made.weight_g.mul_(2.0)
        torch.testing.assert_close(made(x), 2 * layer(x))
    assert sorted(layer.state_dict()) == ["weight_g", "weight_v"]
    assert layer.double()(x.double()).dtype == torch.float64


def test_weight_norm_folds():
    layer, x = WeightNormConv2d(3, 5, 3), torch.randn(2, 3, 6, 6)
    nn.init.uniform_(layer.weight_g, 0.5, 1.5)
    folded = layer.fold()
    assert type(folded) is nn.Conv2d
    assert folded.bias is None
    torch.testing.assert_close(folded(x), layer(x))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_batch_norm_folds(affine, bias, kernel, stride):
    layer = ConvBatchNorm(3, 5, kernel, stride=stride, bias=bias, affine=affine).double().eval()
    _norm(layer.norm)
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(layer.fold()(x), layer(x), rtol=1e-12, atol=1e-12)


def test_folding_leaves_the_random_generator_alone():
    layer = ConvBatchNorm(3, 5, 3).eval()
    before = torch.get_rng_state()
    layer.fold()
    assert torch.equal(torch.get_rng_state(), before)


def test_plain_convolutions_start_narrow_and_weight_normed_ones_do_not():
    model = nn.Sequential(nn.Conv2d(16, 64, 3), WeightNormConv2d(64, 64, 3), nn.Linear(3, 3))
    linear, normed = (p.detach().clone() for p in (model[2].weight, model[1].weight_v))
    start_plain_convolutions(model, 0.01)
    deviation = float(model[0].weight.detach().std())
    assert 0.0097 < deviation < 0.0103  # 9,216 draws: standard error 0.7 %
    assert torch.equal(model[1].weight_v, normed)
    assert torch.equal(model[2].weight, linear)


def test_logits_keep_the_precision_of_their_own_weights():
    layer, x = Logits(6, 3), torch.randn(5, 6)
    torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias)
    half = x.to(torch.bfloat16)
    assert layer(half).dtype == torch.float32
    assert torch.equal(layer(half), layer(half.float()))
    with torch.autocast("cpu", torch.bfloat16):
        expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
        assert torch.equal(layer(x), expected)
        assert torch.equal(layer(half), expected)


def test_an_inference_copy_in_half_precision_has_exact_logits():
    model = tiny_mdeq(3).eval()
    x = torch.rand(16, 2, 9, 7)
    copied = inference_copy(model, dtype=torch.bfloat16)
    [layer] = [part for part in copied.modules() if isinstance(part, Logits)]
    assert torch.equal(layer.weight, model.head.linear.weight)
    assert {p.dtype for p in copied.parameters()} == {torch.bfloat16, torch.float32}
    logits, solution = solve_rows(copied, x.to(torch.bfloat16), "picard:2")
    assert logits.dtype == torch.float32
    assert {part.dtype for part in solution.state} == {torch.bfloat16}
    assert model.head.linear.weight.dtype == torch.float32
