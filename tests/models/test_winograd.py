"""Winograd's algorithm gives what a direct convolution gives, and a row's bits are its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from deqcert.models import BATCH_SIZES, MDEQ, MDEQConfig, inference_copy
from deqcert.models.winograd import WinogradConv, winograd
from tests.models.made import use_batch_statistics

pytest.importorskip("numba")

HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64
# Relative, in the 2-norm: what the docstring of `WinogradConv` states, with room for chance.
TOLERANCE = {SINGLE: 3e-6, HALF: 1.6e-2}


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def _conv(channels, wanted, **options):
    torch.manual_seed(7)
    options = {"padding": 1, "bias": False} | options
    return nn.Conv2d(channels, wanted, options.pop("kernel_size", 3), **options)


def _images(rows, channels, height, width, dtype):
    generator = torch.Generator().manual_seed(11)
    return torch.randn(rows, channels, height, width, generator=generator).relu().to(dtype)


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
@pytest.mark.parametrize(
    ("channels", "wanted", "height", "width", "rows"),
    [(32, 32, 4, 4, 1), (48, 32, 8, 12, 3), (32, 160, 32, 32, 9), (256, 64, 4, 8, 70)],
)
def test_it_is_the_convolution_up_to_rounding(channels, wanted, height, width, rows, dtype):
    conv = _conv(channels, wanted)
    x = _images(rows, channels, height, width, dtype)
    fast = winograd(conv, dtype)
    assert isinstance(fast, WinogradConv)
    assert fast.serves(x)
    got = fast(x)
    exact = F.conv2d(x.double(), conv.weight.detach().double(), padding=1)
    assert got.dtype == dtype
    assert got.shape == exact.shape
    assert float((got.double() - exact).norm() / exact.norm()) < TOLERANCE[dtype]
    # Borders have tiles of their own kind.
    edge = [got.double() - exact, exact]
    for part in (slice(0, 1), slice(-1, None)):
        off, size = (float(e[:, :, part, part].norm()) for e in edge)
        assert off / size < 3 * TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
def test_one_hot_images_give_the_kernel(dtype):
    conv = _conv(32, 32)
    with torch.no_grad():
        conv.weight.copy_(torch.randint(-3, 4, conv.weight.shape).float())
    x = torch.zeros(16, 32, 4, 4, dtype=dtype)
    for place in range(16):
        x[place, place, place // 4, place % 4] = 1.0
    got = winograd(conv, dtype)(x).double()
    exact = F.conv2d(x.double(), conv.weight.detach().double(), padding=1)
    assert float((got - exact).abs().max()) < (1e-5 if dtype is SINGLE else 0.3)


@pytest.mark.parametrize(
    "conv",
    [
        _conv(16, 64),
        _conv(64, 24),
        _conv(40, 40),
        _conv(32, 32, stride=2),
        _conv(32, 32, padding=0),
        _conv(32, 32, dilation=2),
        _conv(32, 32, groups=2),
        _conv(32, 32, kernel_size=1),
        _conv(32, 32, padding_mode="circular"),
    ],
    ids=repr,
)
def test_other_convolutions_are_left_alone(conv):
    assert winograd(conv, SINGLE) is None


def test_images_of_broken_tiles_are_left_alone():
    assert not WinogradConv.serves(torch.zeros(1, 32, 6, 8))
    assert not WinogradConv.serves(torch.zeros(1, 32, 8, 7))
    assert WinogradConv.serves(torch.zeros(1, 32, 8, 4))


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
def test_a_broken_row_stays_alone(dtype):
    fast = winograd(_conv(32, 48), dtype)
    x = _images(40, 32, 8, 8, dtype)
    clean = fast(x)
    x[5, 0, 0, 0], x[9, 3, 7, 7] = torch.nan, torch.inf
    dirty = fast(x)
    others = [row for row in range(40) if row not in (5, 9)]
    assert torch.equal(clean[others], dirty[others])
    assert bool(dirty[[5, 9]].isnan().flatten(1).any(dim=1).all())


def _wide():
    """A model like mdeq-large, with fewer channels and one resolution less."""
    torch.manual_seed(3)
    config = MDEQConfig(
        input_shape=(3, 16, 16), num_classes=10, channels=(32, 64), head="pool", expansion=3
    )
    model = MDEQ(config)
    use_batch_statistics(model, torch.rand(16, 3, 16, 16))
    return model


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
def test_bits_depend_on_neither_batch_nor_threads(threads, dtype):
    model = inference_copy(_wide(), dtype=dtype)
    assert model.f._blocks[0].conv1.winograd is not None
    generator = torch.Generator().manual_seed(5)
    shapes = model.config.state_shapes
    parts = [torch.randn(400, *s, generator=generator).to(dtype) for s in (*shapes, shapes[0])]
    threads(1)
    whole = model.cell(tuple(parts[:-1]), (parts[-1], None))
    for index, size in enumerate(BATCH_SIZES):
        threads(1 + index % 2)
        rows = slice(400 - size, 400) if size <= 400 else slice(0, 400)
        some = [part[rows] for part in parts]
        made = model.cell(tuple(some[:-1]), (some[-1], None))
        assert all(torch.equal(a, b[rows]) for a, b in zip(made, whole, strict=True)), size


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
def test_the_cell_is_the_plain_one_up_to_rounding(dtype):
    model = _wide()
    fast, exact = inference_copy(model, dtype=dtype), inference_copy(model, dtype=DOUBLE)
    generator = torch.Generator().manual_seed(6)
    shapes = model.config.state_shapes
    parts = [torch.randn(20, *s, generator=generator).to(dtype) for s in (*shapes, shapes[0])]
    got = fast.cell(tuple(parts[:-1]), (parts[-1], None))
    wide = [part.double() for part in parts]
    expected = exact.cell(tuple(wide[:-1]), (wide[-1], None))
    for a, b in zip(got, expected, strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 2 * TOLERANCE[dtype]
