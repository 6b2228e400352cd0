"""What a GPU alone can show: that compiled passes over rows give the plain numbers, row by row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deqcert.solvers import agreement, compiled, solve
from deqcert.solvers.anderson import _combine, mixing_weights
from deqcert.solvers.reduce import row_changes, window_dots, window_width

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

ROWS, FEATURES = 400, 14_336
EPS = torch.finfo(torch.float32).eps
each_type = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def rows_of(count: int, features: int, dtype: torch.dtype, *, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, ROWS, features, generator=g).to("cuda", dtype)


def window_of(slots: int, features: int, dtype: torch.dtype) -> Tensor:
    window = torch.zeros(slots, ROWS, window_width(features), dtype=dtype, device="cuda")
    window[:, :, :features] = rows_of(slots, features, dtype)
    return window


def shares_of(pairs: int) -> Tensor:
    return torch.rand(pairs, ROWS, generator=torch.Generator().manual_seed(1)).cuda()


def gram_of(pairs: int) -> Tensor:  # (B, P, P)
    residuals = rows_of(pairs, 40, torch.float32, seed=2).double().transpose(0, 1)
    residuals[-1, 0] = 0  # at its fixed point
    residuals[9, pairs // 2 :] = residuals[9, :1]  # dependent pairs
    residuals[10, -1] = torch.nan
    return residuals @ residuals.mT


def combined(shares: Tensor, points: list[Tensor]) -> Tensor:
    out = torch.full_like(points[0], torch.nan)
    _combine(shares, points, out)
    return out


@pytest.fixture
def without(monkeypatch):
    """Return a function that computes something as it is done where Triton is missing."""

    def run(work):
        with monkeypatch.context() as change:
            change.setattr(compiled, "_gpu_kernels", lambda: None)
            return work()

    return run


@each_type
def test_the_kernels_are_used(dtype):
    x = torch.ones(2, 3, 48, dtype=dtype, device="cuda")
    assert compiled.dots(x, 0, torch.empty(2, 3, dtype=torch.float64, device="cuda"))
    assert agreement._found[x.device, dtype]


@each_type
@pytest.mark.parametrize("features", [1, 37, 1536, FEATURES])
@pytest.mark.parametrize("pairs", [1, 3, 6, 8])
def test_sums_agree_with_plain_ones(pairs, features, dtype, without):
    window, x = window_of(pairs, features, dtype), rows_of(2, features, dtype, seed=3)
    for work in (lambda: window_dots(window, pairs // 2), lambda: row_changes(*x)):
        torch.testing.assert_close(work(), without(work), rtol=1e-6, atol=1e-6 * features)


@each_type
@pytest.mark.parametrize("features", [1, 37, FEATURES])
@pytest.mark.parametrize("pairs", [1, 3, 6, 8])
def test_weighted_sums_are_rounded_once(pairs, features, dtype):
    points, shares = list(rows_of(pairs, features, dtype)), shares_of(pairs)
    terms = torch.stack([s[:, None] * p for s, p in zip(shares.double(), points, strict=True)])
    exact, size = terms.sum(0), terms.abs().sum(0)
    near = torch.finfo(dtype).eps / 2 * exact.abs() + pairs * EPS * size
    assert bool(((combined(shares, points).double() - exact).abs() <= near).all())


@pytest.mark.parametrize("pairs", [1, 2, 3, 6, 8, 9])
def test_weights_agree_with_plain_ones(pairs, without):
    gram = gram_of(pairs)

    def work() -> Tensor:
        return mixing_weights(gram, 1e-4, EPS)

    torch.testing.assert_close(work(), without(work), rtol=1e-9, atol=1e-9, equal_nan=True)


@each_type
@pytest.mark.parametrize("features", [37, FEATURES])
def test_a_row_does_not_depend_on_its_batch(features, dtype):
    window, shares, gram = window_of(6, features, dtype), shares_of(6), gram_of(6)
    points, x, y = list(rows_of(6, features, dtype)), *rows_of(2, features, dtype, seed=3)
    dots, changes, total = window_dots(window, 4), row_changes(x, y), combined(shares, points)
    weights = mixing_weights(gram, 1e-4, EPS)
    for rows in (slice(0, 1), slice(7, 9), slice(15, 31), slice(100, 228), slice(399, 400)):
        for part in (window[:, rows], window[:, rows].contiguous()):
            assert torch.equal(window_dots(part, 4), dots[:, rows])
        assert torch.equal(row_changes(x[rows], y[rows]), changes[:, rows])
        assert torch.equal(combined(shares[:, rows], [p[rows] for p in points]), total[rows])
        some = mixing_weights(gram[rows], 1e-4, EPS)
        assert torch.equal(some.nan_to_num(9.0), weights[rows].nan_to_num(9.0))


@each_type
def test_what_is_not_finite_stays_in_its_row(dtype):
    window = window_of(3, 700, dtype)
    clean = window_dots(window, 1), combined(shares_of(3), list(window)).t()
    window[1, 5, 3] = torch.nan
    dirty = window_dots(window, 1), combined(shares_of(3), list(window)).t()
    others = torch.arange(ROWS) != 5
    for a, b in zip(clean, dirty, strict=True):
        assert torch.equal(a[:, others], b[:, others])
        assert bool(b[:, 5].isnan().any())


def problem(dtype: torch.dtype):
    g = torch.Generator().manual_seed(4)
    weight = (torch.randn(64, 64, generator=g) / 12).cuda()
    x = torch.randn(70, 64, generator=g).cuda()

    def cell(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z.float() @ weight + x).to(z.dtype)

    return cell, torch.zeros_like(x).to(dtype), x


@each_type
@pytest.mark.parametrize("spec", ["anderson:9", "anderson:9:1e-2", "picard:9"])
def test_solves_agree(spec, dtype, without):
    cell, start, x = problem(dtype)

    def work():
        return solve(cell, start, x, spec=spec)

    fast, plain = work(), without(work)
    assert torch.equal(fast.status, plain.status)
    apart = (fast.state.float() - plain.state.float()).norm(dim=1) / plain.state.float().norm(dim=1)
    eps = torch.finfo(dtype).eps
    assert apart.max() < 4 * eps
    assert apart.median() < eps


@each_type
@pytest.mark.parametrize("looked", [True, False])
def test_a_recorded_solve(looked, dtype, without, monkeypatch):
    cell, start, x = problem(dtype)

    def work() -> Tensor:
        return solve(cell, start, x, spec="anderson:9").state

    # Where nothing has been looked at before, a recording is of PyTorch's own operations.
    expected = work() if looked else without(work)
    if not looked:
        monkeypatch.setattr(agreement, "_found", {})
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work() if looked else without(work)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        state = work()
    graph.replay()
    assert torch.equal(state, expected)
    assert bool(agreement._found) == looked
