"""The compiled kernels against the same formulas in PyTorch, float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

kernels = pytest.importorskip("deqcert.models.fused_kernels", reason="numba is not installed")

# (channels, groups, height, width): those of the models, and odd ones: a channel per group, one
# group, one pixel, one line, odd sizes, 3 channels per group.
SHAPES = [
    (40, 8, 32, 32),
    (80, 8, 16, 16),
    (32, 4, 8, 8),
    (256, 8, 4, 4),
    (4, 4, 9, 7),
    (5, 1, 5, 4),
    (8, 2, 1, 1),
    (6, 2, 1, 13),
    (12, 4, 11, 1),
]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2.0**-8}


def _images(shape, dtype, *, seed=0, rows=3):
    channels, _, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    x = 1.5 + 2.0 * torch.randn(rows, channels, height, width, generator=generator)
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def _array(x):
    rows, channels, height, width = x.shape
    lines = x.permute(0, 2, 3, 1).reshape(rows, height, width * channels)
    if x.dtype == torch.bfloat16:
        return lines.view(torch.int16).numpy().view(np.uint16)
    return lines.numpy()


def _tensor(array, like):
    rows, channels, height, width = like.shape
    array = array.reshape(rows, height, width, channels)
    if array.dtype == np.uint16:
        out = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    else:
        out = torch.from_numpy(array)
    return out.permute(0, 3, 1, 2)


def _affine(channels, seed):
    random = np.random.default_rng(seed)
    return np.stack([random.uniform(0.5, 1.5, channels), random.uniform(-1, 1, channels)]).astype(
        np.float32
    )


def _group_norm(x, affine, groups, eps=1e-5):
    weight, bias = torch.from_numpy(affine).double()
    if x[0].numel() == groups:  # PyTorch refuses one value per group; its norm is the bias
        return bias.view(1, -1, 1, 1).expand_as(x).double()
    return F.group_norm(x.double(), groups, weight, bias, eps)


def _close(got, expected, dtype):
    assert torch.isfinite(expected).all()
    bound = TOLERANCE[dtype]
    torch.testing.assert_close(got.double(), expected, rtol=bound, atol=2 * bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_and_relu(shape, dtype):
    x, affine = _images(shape, dtype), _affine(shape[0], 1)
    expected = _group_norm(x, affine, shape[1])
    array, out = _array(x).copy(), np.zeros_like(_array(x))
    kernels.norm(array, out, affine[0], affine[1], shape[1], 1e-5)
    _close(_tensor(out, x), expected, dtype)
    assert np.array_equal(array, _array(x))
    kernels.norm_relu(array, affine[0], affine[1], shape[1], 1e-5)
    _close(_tensor(array, x), expected.relu(), dtype)


@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_end_of_a_block(shape, dtype, add):
    x, injection, z = (_images(shape, dtype, seed=seed) for seed in (1, 2, 3))
    first, second = _affine(shape[0], 4), _affine(shape[0], 5)
    total = x.double() + injection.double() if add else x
    inner = (_group_norm(total, first, shape[1]) + z.double()).relu()
    expected = _group_norm(inner, second, shape[1])
    array = _array(x).copy()
    kernels.end_block(array, add, _array(injection), _array(z), first, second, shape[1], 1e-5)
    _close(_tensor(array, x), expected, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("size", "sources"),
    [
        ((8, 8), [(8, 8), (4, 4), (2, 2)]),
        ((9, 7), [(5, 4), (3, 2)]),
        ((5, 4), [(5, 4)]),
        ((2, 2), [(1, 1), (2, 2)]),
    ],
)
def test_fusion(size, sources, dtype):
    channels, groups = 8, 2
    base = _images((channels, groups, *size), dtype)
    parts = [_images((channels, groups, *s), dtype, seed=i) for i, s in enumerate(sources, 1)]
    weights = np.stack([_affine(channels, i) for i in range(len(parts))])
    total = base.double()
    for part, affine in zip(parts, weights, strict=True):
        total = total + F.interpolate(_group_norm(part, affine, groups), size=size, mode="nearest")
    rows, columns = (np.stack([_places(s[axis], size[axis]) for s in sources]) for axis in (0, 1))
    out = np.zeros_like(_array(base))
    arrays = tuple(_array(part) for part in parts)
    kernels.fuse(_array(base), arrays, weights, rows, columns, groups, 1e-5, out)
    _close(_tensor(out, base), total.relu(), dtype)


def _places(count, wanted):
    places = torch.arange(count, dtype=torch.float32)[None, None]
    return F.interpolate(places, size=wanted, mode="nearest")[0, 0].long().numpy()


def test_a_large_mean_costs_no_digits():
    shape = (8, 2, 6, 6)
    x = _images(shape, torch.float32)
    far, affine = x + 4096.0, _affine(8, 1)
    expected = _group_norm(far, affine, 2)
    out = np.zeros_like(_array(far))
    kernels.norm(_array(far), out, affine[0], affine[1], 2, 1e-5)
    # The result is x * scale + offset: what is left is the rounding of x itself.
    torch.testing.assert_close(_tensor(out, far).double(), expected, rtol=0.0, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_in_its_row(bad, dtype):
    shape = (8, 2, 4, 4)
    x, affine = _images(shape, dtype, rows=4), _affine(8, 1)
    spoilt = x.clone(memory_format=torch.preserve_format)
    spoilt[2, 5, 1, 3] = bad
    results = []
    for images in (x, spoilt):
        one, other = _array(images).copy(), _array(images).copy()
        kernels.norm_relu(one, affine[0], affine[1], 2, 1e-5)
        kernels.end_block(other, True, _array(x), _array(x), affine, affine, 2, 1e-5)
        total = np.zeros_like(one)
        places = np.arange(4)[None]
        sources = (_array(images),)
        kernels.fuse(_array(x), sources, affine[None], places, places, 2, 1e-5, total)
        results.append([_tensor(a, x) for a in (one, other, total)])
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean[[0, 1, 3]], dirty[[0, 1, 3]])
        # The spoilt number's group of channels, as in PyTorch, and no other.
        assert bool(dirty[2, 4:].isnan().all())
        assert torch.equal(dirty[2, :4], clean[2, :4])


def test_bfloat16_is_rounded_like_pytorch_rounds():
    # One number per channel and group: the result is the bias, rounded.
    random = np.random.default_rng(0)
    values = np.concatenate(
        [
            random.normal(size=500) * 10.0 ** random.integers(-30, 30, 500),
            # halfway cases, to even below and above; the largest number; infinity; zero
            [1.00390625, 1.01171875, -1.00390625, 3.4e38, np.inf, -np.inf, 0.0, -0.0],
        ]
    ).astype(np.float32)
    x = torch.zeros(1, len(values), 1, 1, dtype=torch.bfloat16)
    out = np.zeros_like(_array(x))
    kernels.norm(_array(x), out, np.ones_like(values), values, len(values), 1e-5)
    expected = torch.from_numpy(values).to(torch.bfloat16)
    assert torch.equal(_tensor(out, x).flatten(), expected)
