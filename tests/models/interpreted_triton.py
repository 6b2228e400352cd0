"""The Triton kernels, run by Triton's interpreter on tensors of the CPU (see `test_triton.py`).

Against the same formulas in PyTorch, float64; whole cells also against the plain cell and the one
of numba.
"""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from deqcert.models import build, gpu_kernels, inference_copy, solve_rows
from deqcert.models.cell_kernels import Norm
from deqcert.models.fused_cell import FusedCell
from deqcert.models.gpu_ends import GpuHead, GpuStem, gpu_end
from deqcert.models.gpu_kernels import GpuKernels
from tests.models.checked_kernels import look_at
from tests.models.made import tiny_mdeq, use_batch_statistics

assert os.environ.get("TRITON_INTERPRET") == "1", "to be run with TRITON_INTERPRET=1"

SINGLE, HALF = torch.float32, torch.bfloat16
CPU = torch.device("cpu")
KERNELS = GpuKernels(CPU)
EPS = 1e-5
# (channels, groups, height, width), numbers of a tile: the last ones make several of an image.
SHAPES = [
    ((40, 8, 9, 7), 4096),
    ((160, 8, 4, 4), 4096),
    ((160, 4, 3, 5), 4096),
    ((64, 1, 8, 8), 4096),
    ((7, 7, 4, 4), 4096),
    ((8, 4, 16, 8), 4096),
    ((6, 2, 1, 13), 4096),
    ((8, 2, 1, 1), 4096),
    ((7, 1, 5, 4), 64),
    ((40, 8, 5, 7), 256),
    ((8, 8, 8, 8), 64),
]
# Triton's interpreter cuts off the bits that bfloat16 has no room for, where a GPU rounds to the
# nearest (`test_triton.py` looks at the machine code).
TOLERANCE = {SINGLE: 2e-6, HALF: 2.0**-7}
precisions = pytest.mark.parametrize("dtype", [SINGLE, HALF])


def cases(names: str, values: list) -> pytest.MarkDecorator:
    """All values in float32, every third in bfloat16: it differs in reading and writing alone."""
    given = [(*value, SINGLE) for value in values] + [(*value, HALF) for value in values[::3]]
    return pytest.mark.parametrize((*names.split(), "dtype"), given)


shapes = cases("shape most", SHAPES)


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    """Triton's interpreter multiplies the bits of bfloat16; and a sum may depend on its place."""

    def wide(x):
        data = x.data.view(np.uint16).astype(np.uint32) << 16 if x.dtype == tl.bfloat16 else x.data
        return data.view(np.float32).astype(np.float64)

    def create_dot(self, a, b, total, *rest):
        products = np.matmul(wide(a), wide(b)).astype(np.float32)
        return TensorHandle(products + total.data, total.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


def images(shape, dtype, *, seed=0, rows=2) -> Tensor:
    channels, _, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    x = 1.5 + 2.0 * torch.randn(rows, channels, height, width, generator=generator)
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def norm_for(shape, *, seed, affine=True) -> Norm:
    channels, groups, _, _ = shape
    generator = torch.Generator().manual_seed(seed)
    values = torch.stack([torch.ones(channels), torch.zeros(channels)])
    if affine:
        values += torch.rand(2, channels, generator=generator) - 0.5
    return Norm(KERNELS.constant(values), groups, EPS)


def normed(x: Tensor, norm: Norm) -> Tensor:
    weight, bias = norm.affine.double()
    if x[0].numel() == norm.groups:  # PyTorch refuses one value per group; its norm is the bias
        return bias.view(1, -1, 1, 1).expand_as(x)
    return F.group_norm(x.double(), norm.groups, weight, bias, norm.eps)


def close(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert torch.isfinite(expected).all()
    assert got.dtype == dtype
    bound = TOLERANCE[dtype]
    torch.testing.assert_close(got.double(), expected, rtol=bound, atol=2 * bound)


@shapes
def test_norm_with_and_without_the_positive_part(monkeypatch, shape, most, dtype):
    monkeypatch.setattr(gpu_kernels, "_TILE", most)
    x, norm = images(shape, dtype), norm_for(shape, seed=1, affine=shape[1] != 4)
    before, out, expected = x.clone(), torch.full_like(x, torch.nan), normed(x, norm)
    KERNELS.norm(x, out, norm)
    close(out, expected, dtype)
    assert torch.equal(x, before)
    KERNELS.norm_relu(x, norm)
    close(x, expected.relu(), dtype)


@shapes
def test_end_of_a_block(monkeypatch, shape, most, dtype):
    monkeypatch.setattr(gpu_kernels, "_TILE", most)
    add = shape[0] != 160
    x, injection, z = (images(shape, dtype, seed=seed) for seed in (1, 2, 3))
    first, second = norm_for(shape, seed=4), norm_for(shape, seed=5)
    total = x.double() + injection.double() if add else x
    expected = normed((normed(total, first) + z.double()).relu(), second)
    KERNELS.end_block(x, injection if add else None, z, first, second)
    close(x, expected, dtype)


@cases(
    "channels size sources most",
    [
        ((8, 2), (8, 8), [(8, 8), (4, 4), (2, 2)], 4096),
        ((8, 2), (8, 8), [(8, 8), (4, 4), (2, 2)], 64),
        ((40, 8), (4, 4), [(4, 4), (2, 2), (1, 1)], 4096),
        ((7, 1), (9, 7), [(5, 4), (3, 2)], 128),
        ((40, 4), (5, 4), [(5, 4)], 4096),
        ((7, 7), (2, 2), [(1, 1), (2, 2)], 4096),
    ],
)
def test_fusion(monkeypatch, channels, size, sources, most, dtype):
    monkeypatch.setattr(gpu_kernels, "_TILE", most)
    base = images((*channels, *size), dtype)
    paths = [images((*channels, *s), dtype, seed=i) for i, s in enumerate(sources, 1)]
    norms = [norm_for((*channels, *size), seed=i) for i in range(len(paths))]
    expected = base.double()
    for path, norm in zip(paths, norms, strict=True):
        expected = expected + F.interpolate(normed(path, norm), size=size, mode="nearest")
    together = Norm(torch.stack([norm.affine for norm in norms]), channels[1], EPS)
    out = torch.full_like(base, torch.nan)
    KERNELS.fuse(base, paths, together, out)
    close(out, expected.relu(), dtype)


@cases(
    "inner outer kernel stride size",
    [
        (8, 40, 3, 1, (6, 5)),
        (40, 8, 3, 1, (4, 4)),
        (8, 16, 3, 2, (7, 6)),
        (3, 8, 3, 1, (9, 7)),
        (5, 7, 1, 1, (3, 3)),
        (32, 160, 1, 1, (2, 2)),
        (2, 130, 3, 2, (1, 1)),
        (1, 4, 5, 1, (4, 3)),
    ],
)
def test_convolution_and_what_follows_it(inner, outer, kernel, stride, size, dtype):
    torch.manual_seed(2)
    with_bias = outer != 40
    plain = torch.nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=with_bias)
    ours = KERNELS.conv(plain, dtype)
    x = images((inner, 1, *size), dtype, rows=3)
    given = x.clone()
    exact = copy.deepcopy(plain).double()
    exact.weight.data = plain.weight.to(dtype).double()
    with torch.no_grad():
        expected = exact(x.double())
    shape = (outer, 1, *expected.shape[2:])
    close(ours(x), expected, dtype)
    shortcut, other = (images(shape, dtype, seed=seed, rows=3) for seed in (3, 4))
    close(ours(x, relu=True), expected.relu(), dtype)
    close(ours(x, shortcut=shortcut), expected + shortcut.double(), dtype)
    whole = ours(x, shortcut=shortcut, relu=True, other=other)
    close(whole, (expected + shortcut.double()).relu() + other.double(), dtype)
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, given)
    assert ours.channels == outer
    alone = ours(x[1:2], shortcut=shortcut[1:2], relu=True, other=other[1:2])
    assert torch.equal(alone, whole[1:2])


@precisions
def test_a_convolution_keeps_what_is_not_finite_in_its_row(dtype):
    ours = KERNELS.conv(torch.nn.Conv2d(4, 6, 3, padding=1), dtype)
    x = images((4, 1, 5, 5), dtype, rows=3)
    spoilt = x.clone()
    spoilt[1, 2, 2, 2] = torch.nan
    clean, dirty = ours(x, relu=True), ours(spoilt, relu=True)
    assert torch.equal(clean[[0, 2]], dirty[[0, 2]])
    assert bool(dirty[1, :, 1:4, 1:4].isnan().all())
    assert torch.equal(dirty[1, :, 0], clean[1, :, 0])


def test_a_large_mean_costs_no_digits():
    shape = (8, 2, 6, 6)
    far, norm = images(shape, SINGLE) + 4096.0, norm_for(shape, seed=1)
    out = torch.empty_like(far)
    KERNELS.norm(far, out, norm)
    # What is left is the rounding of x itself, 2.4e-4 of a deviation of 2, and of its mean.
    torch.testing.assert_close(out.double(), normed(far, norm), rtol=0.0, atol=5e-4)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy, interpreting
@precisions
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_in_its_row_and_group(bad, dtype):
    shape = (8, 2, 4, 4)
    x, norm = images(shape, dtype, rows=4), norm_for(shape, seed=1)
    spoilt = x.clone()
    spoilt[2, 5, 1, 3] = bad
    results = []
    for given in (x, spoilt):
        one, other, total = given.clone(), given.clone(), torch.empty_like(x)
        KERNELS.norm_relu(one, norm)
        KERNELS.end_block(other, x, x, norm, norm)
        KERNELS.fuse(x, [given], Norm(norm.affine[None], 2, EPS), total)
        results.append((one, other, total))
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean[[0, 1, 3]], dirty[[0, 1, 3]])
        assert bool(dirty[2, 4:].isnan().all())
        assert torch.equal(dirty[2, :4], clean[2, :4])


@precisions
def test_an_address_that_is_no_multiple_of_sixteen_is_taken(dtype):
    shape = (7, 7, 3, 3)
    x, z, norm = images(shape, dtype, rows=3), images(shape, dtype, seed=1), norm_for(shape, seed=1)
    part = x[1:]
    assert part.data_ptr() % 16
    out, expected = part.clone(), part.clone()
    KERNELS.norm(part, out, norm)
    KERNELS.norm(part.clone(), expected, norm)
    assert torch.equal(out, expected)
    KERNELS.end_block(out, part, z, norm, norm)
    KERNELS.end_block(expected, part.clone(), z, norm, norm)
    assert torch.equal(out, expected)


def made(name: str, dtype: torch.dtype):
    """A model's plain cell in float64, its cell by numba, and that by Triton."""
    torch.manual_seed(3)
    if name.startswith("mdeq"):
        model = build(name)
        use_batch_statistics(model, torch.rand(4, *model.input_shape))
    else:
        changes = {"input_shape": (2, 8, 12), "groups": 4} if name == "even" else {}
        model = tiny_mdeq(3 if name == "even" else int(name), **changes)
        use_batch_statistics(model, torch.rand(8, *model.input_shape))
    for part in model.f.modules():
        if isinstance(part, torch.nn.GroupNorm) and part.affine:
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.uniform_(part.bias, -0.5, 0.5)
    exact = inference_copy(model, dtype=torch.float64)
    numba = inference_copy(model, dtype=dtype)
    assert isinstance(numba.f, FusedCell)
    half = copy.deepcopy(numba)
    # From weights that have not lost half of their bits, as the cell of numba.
    single = inference_copy(model, dtype=SINGLE)
    half.f = FusedCell(single.f.plain, dtype, KERNELS)
    half.stem = gpu_end(single.stem.plain, dtype, CPU)
    half.head = gpu_end(getattr(single.head, "plain", single.head), dtype, CPU)
    return exact, numba, half


def start(model, rows, dtype):
    generator = torch.Generator().manual_seed(5)
    shapes = model.config.state_shapes
    parts = [torch.randn(rows, *shape, generator=generator) for shape in (*shapes, shapes[0])]
    *state, top = (part.to(dtype) for part in parts)
    return tuple(state), top.relu()


def distance(x: Tensor, y: Tensor) -> float:
    return float((x.double() - y.double()).norm() / y.double().norm())


@torch.no_grad()
@precisions
@pytest.mark.parametrize("name", ["1", "even", "mdeq-digits"])
def test_the_cell_is_the_plain_one_and_that_of_numba(name, dtype):
    exact, numba, ours = made(name, dtype)
    state, top = start(ours, 2, dtype)
    got, other = ours.f(state, top, None), numba.f(state, top, None)
    expected = exact.f(tuple(part.double() for part in state), top.double(), None)
    for a, b, c in zip(got, other, expected, strict=True):
        assert a.dtype == dtype
        assert a.shape == c.shape
        assert distance(a, c) < {SINGLE: 3e-6, HALF: 0.03}[dtype]
        assert distance(a, b) < {SINGLE: 3e-6, HALF: 0.03}[dtype]


@torch.no_grad()
@precisions
@pytest.mark.parametrize("name", ["3", "even"])
def test_stem_and_head_are_the_plain_ones(name, dtype):
    exact, _, ours = made(name, dtype)
    assert isinstance(ours.stem, GpuStem)
    assert isinstance(ours.head, GpuHead)
    x = torch.rand(3, *ours.input_shape).to(dtype)
    bound = {SINGLE: 3e-6, HALF: 0.03}[dtype]
    assert distance(ours.stem(x), exact.stem(x.double())) < bound
    state, _ = start(ours, 3, dtype)
    logits = ours.head(state)
    assert logits.dtype == SINGLE
    assert distance(logits, exact.head(tuple(part.double() for part in state))) < bound


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
def test_a_look_at_each_kernel_finds_the_one_that_is_wrong(dtype, monkeypatch):
    torch.manual_seed(3)
    model = tiny_mdeq(2, head="bottleneck", head_channels=(2, 3), final_width=6)
    use_batch_statistics(model, torch.rand(8, *model.input_shape))
    usual = GpuKernels.fuse

    def look(right):
        def fuse(self, base, paths, norms, out):
            usual(self, base, paths, norms, out)
            out[..., 0, 0] += 0.05 * (not right and out.shape[2] == 5)

        monkeypatch.setattr(GpuKernels, "fuse", fuse)
        return look_at(model, dtype, CPU, 2, monkeypatch)

    found = look(right=True)
    kinds = {what.partition(" ")[0] for what in found.farthest}
    assert kinds == {"conv", "norm", "norm_relu", "end_block", "fuse"}
    assert found.wrong(dtype) == {}
    if dtype == SINGLE:
        assert list(look(right=False).wrong(dtype)) == ["fuse (2, 8, 5, 4) of 1"]


@torch.no_grad()
@precisions
def test_bits_do_not_depend_on_the_batch(dtype):
    _, _, ours = made("2", dtype)
    state, top = start(ours, 3, dtype)
    whole = ours.f(state, top, None)
    for rows in (slice(0, 1), slice(1, 3)):
        parts = ours.f(tuple(part[rows] for part in state), top[rows], None)
        assert all(torch.equal(a, b[rows]) for a, b in zip(parts, whole, strict=True)), rows


@torch.no_grad()
@precisions
def test_whole_solves(dtype):
    exact, numba, ours = made("2", dtype)
    x = torch.rand(2, *ours.input_shape).to(dtype)
    spec = {SINGLE: "anderson:3", HALF: "picard:3"}[dtype]

    def solved(model, images):
        return solve_rows(model, images, spec, sizes=(2,))[0]

    got = solved(ours, x)
    assert distance(got, solved(exact, x.double())) < {SINGLE: 1e-5, HALF: 0.1}[dtype]
    assert distance(got, solved(numba, x)) < {SINGLE: 1e-5, HALF: 0.1}[dtype]
