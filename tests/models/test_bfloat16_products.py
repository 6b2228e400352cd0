"""Without instructions for bfloat16 products the same classifier is computed in float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from deqcert.data import load_data
from deqcert.models import BATCH_SIZES, inference_copy, load_model, solve_rows
from deqcert.models import bfloat16_products as products_module
from deqcert.models.fast_conv import FastConv
from deqcert.models.winograd import winograd

pytest.importorskip("numba")

HALF, SINGLE = torch.bfloat16, torch.float32
UNIT = 2.0**-8
"""Half of what neighbouring bfloat16 numbers near 1 lie apart: the error of one rounding."""


@pytest.fixture
def instructions(monkeypatch):
    """Let PyTorch claim another set of instructions."""

    def claim(name):
        products_module.has_bfloat16_products.cache_clear()
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: name)

    yield claim
    products_module.has_bfloat16_products.cache_clear()


@pytest.mark.parametrize(
    ("name", "there"),
    [("AVX512", True), ("AVX2", False), ("DEFAULT", False), ("NO AVX", False), ("SVE256", True)],
)
def test_the_instructions_decide(instructions, name, there):
    instructions(name)
    assert products_module.has_bfloat16_products() is there
    assert products_module.product_type(HALF) == (HALF if there else SINGLE)
    assert products_module.product_type(SINGLE) == SINGLE


def _conv(channels, wanted, kernel, stride, bias):
    torch.manual_seed(7)
    padding = kernel // 2
    return nn.Conv2d(channels, wanted, kernel, stride=stride, padding=padding, bias=bias)


def _images(rows, channels, size):
    generator = torch.Generator().manual_seed(11)
    return torch.randn(rows, channels, size, size, generator=generator).relu().to(HALF)


@pytest.mark.parametrize(
    ("channels", "wanted", "kernel", "stride", "with_bias"),
    [(40, 8, 3, 1, False), (16, 32, 3, 2, True), (12, 7, 1, 1, True), (5, 24, 3, 1, False)],
)
def test_a_widened_convolution_is_rounded_once(
    instructions, channels, wanted, kernel, stride, with_bias
):
    conv = _conv(channels, wanted, kernel, stride, with_bias)
    x = _images(16, channels, 8)
    instructions("AVX2")
    got = FastConv(conv, HALF)(x)
    weight = conv.weight.detach().to(HALF).double()
    shift = None if conv.bias is None else conv.bias.detach().to(HALF).double()
    exact = F.conv2d(x.double(), weight, shift, stride, conv.padding)
    assert got.dtype == HALF
    # One rounding of a sum in float32; what that adds is a thousand times smaller.
    allowed = 1.01 * UNIT * exact.abs() + 1e-5
    assert bool(((got.double() - exact).abs() <= allowed).all())


def test_widened_products_of_tiles_are_as_close_as_direct_ones(instructions):
    conv = _conv(48, 32, 3, 1, False)
    x = _images(9, 48, 8)
    exact = F.conv2d(x.double(), conv.weight.detach().double(), padding=1)
    found = {}
    for name in ("AVX512", "AVX2"):
        instructions(name)
        fast = winograd(conv, HALF)
        assert fast is not None
        assert fast.weight.dtype == (HALF if name == "AVX512" else SINGLE)
        found[name] = fast(x).double()
        assert float((found[name] - exact).norm() / exact.norm()) < 1.6e-2
    apart = float((found["AVX2"] - found["AVX512"]).norm() / exact.norm())
    assert apart < 8e-3  # sums in another order, then rounded: less than the rounding itself


def _noisy_digits(count):
    images = torch.stack([example.image for example in load_data("digits", split="test")])[:count]
    generator = torch.Generator().manual_seed(0)
    return (images + 0.5 * torch.randn(images.shape, generator=generator)).to(HALF)


def test_labels_of_a_shipped_model_stay(instructions):
    model, x = load_model("mdeq-digits-s050"), _noisy_digits(192)
    found = {}
    for name in ("AVX512", "AVX2"):
        instructions(name)
        found[name] = solve_rows(inference_copy(model, dtype=HALF), x, "picard:3")[0]
    single = solve_rows(inference_copy(model), x.float(), "picard:3")[0]
    rounding = (found["AVX512"] - single).abs().max()
    apart = (found["AVX2"] - found["AVX512"]).abs().max()
    assert float(rounding) > 0
    assert float(apart) < float(rounding)  # the same classifier up to less than its own rounding
    top = single.topk(2).values
    clear = (top[:, 0] - top[:, 1]) > 2 * float(rounding)
    assert int(clear.sum()) > 150
    for logits in found.values():
        assert torch.equal(logits.argmax(1)[clear], single.argmax(1)[clear])


def test_bits_of_widened_rows_depend_on_no_batch(instructions):
    instructions("AVX2")
    fast, x = inference_copy(load_model("mdeq-digits-s050"), dtype=HALF), _noisy_digits(192)
    whole = solve_rows(fast, x, "anderson:5")[0]
    for size in [size for size in BATCH_SIZES if size <= len(x)]:
        assert torch.equal(solve_rows(fast, x[:size], "anderson:5")[0], whole[:size]), size
