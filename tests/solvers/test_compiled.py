"""Compiled passes: the same numbers with and without compiled kernels, row by row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from deqcert.solvers import compiled, solve
from deqcert.solvers.anderson import _combine, mixing_weights
from deqcert.solvers.reduce import row_changes, window_dots, window_width
from deqcert.solvers.residual import ratios

pytest.importorskip("numba")


EACH_TYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def rows_of(count: int, features: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, 50, features, generator=g).to(dtype)


def window_of(features: int, dtype: torch.dtype) -> torch.Tensor:
    window = torch.zeros(4, 50, window_width(features), dtype=dtype)
    window[:, :, :features] = rows_of(4, features, dtype)
    return window


@pytest.fixture(params=[1, 2])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """Return a function that computes something as it is done where numba is missing."""

    def run(work):
        with monkeypatch.context() as change:
            change.setattr(compiled, "_kernels", lambda: None)
            return work()

    return run


@EACH_TYPE
@pytest.mark.parametrize("features", [1, 37, 1536, 5000])
def test_sums_agree_with_plain_ones(features: int, dtype: torch.dtype, without):
    window, (x, y) = window_of(features, dtype), rows_of(2, features, dtype, seed=1)
    for work in (lambda: window_dots(window, 2), lambda: row_changes(x, y)):
        scale = 1e-6 * features
        torch.testing.assert_close(work(), without(work), rtol=1e-6, atol=scale)


def test_residuals_of_any_sums_are_the_plain_ones(without):
    sums = [
        0.0,
        1e-300,
        1e-92,
        1e-76,
        1e-20,
        0.3,
        1.0,
        7e40,
        1e76,
        1e200,
        float("inf"),
        float("nan"),
    ]
    squares = torch.tensor([[a, b] for a in sums for b in sums], dtype=torch.float64).t()
    squares = squares.contiguous()
    found, plain = ratios(squares), without(lambda: ratios(squares))
    torch.testing.assert_close(found, plain, rtol=0, atol=0, equal_nan=True)
    assert found.isinf().any()
    assert found.isnan().any()
    assert ((found > 0) & (found < 1)).any()


@EACH_TYPE
@pytest.mark.parametrize("features", [1, 37, 1536, 5000])
def test_weighted_sums_are_rounded_once(features: int, dtype: torch.dtype, without):
    points = list(rows_of(3, features, dtype))
    shares = torch.rand(3, 50, generator=torch.Generator().manual_seed(2))

    def combined() -> torch.Tensor:
        out = torch.empty_like(points[0])
        _combine(shares, points, out)
        return out

    exact = sum(s[:, None].double() * p.double() for s, p in zip(shares, points, strict=True))
    assert isinstance(exact, torch.Tensor)
    for found in (combined(), without(combined)):
        # Half the distance of two numbers, and what float32 sums are off by.
        near = torch.finfo(dtype).eps / 2 * exact.abs() * 1.001 + 1e-6
        assert ((found.double() - exact).abs() <= near).all()


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("size", [1, 2, 6])
@pytest.mark.parametrize("rows", [5, 16, 700])
def test_weights_agree_with_plain_ones(size: int, rows: int, without):
    g = torch.Generator().manual_seed(5)
    residuals = torch.randn(rows, size, 40, generator=g, dtype=torch.float64)
    residuals[-1, 0] = 0  # at its fixed point
    residuals[rows // 2, size // 2 :] = residuals[rows // 2, :1]  # dependent pairs
    residuals[rows // 3, -1] = torch.nan
    gram, eps = residuals @ residuals.mT, torch.finfo(torch.float32).eps
    weights, plain = (run(lambda: mixing_weights(gram, 1e-4, eps)) for run in (_as_it_is, without))
    torch.testing.assert_close(weights, plain, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert torch.equal(mixing_weights(gram[-1:], 1e-4, eps), weights[-1:])


def _as_it_is(work):
    return work()


@pytest.mark.usefixtures("_threads")
@EACH_TYPE
def test_a_row_does_not_depend_on_its_batch(dtype: torch.dtype):
    window, (x, y) = window_of(3000, dtype), rows_of(2, 3000, dtype, seed=1)
    dots, changes = window_dots(window, 1), row_changes(x, y)
    for rows in (slice(0, 1), slice(7, 9), slice(3, 50)):
        assert torch.equal(window_dots(window[:, rows].contiguous(), 1), dots[:, rows])
        assert torch.equal(window_dots(window[:, rows], 1), dots[:, rows])
        assert torch.equal(row_changes(x[rows], y[rows]), changes[:, rows])


@EACH_TYPE
def test_what_is_not_finite_stays_in_its_row(dtype: torch.dtype):
    points = list(rows_of(3, 700, dtype))
    points[1][5, 3], points[2][9, 0] = torch.nan, torch.inf
    out = torch.empty_like(points[0])
    shares = torch.rand(3, 50, generator=torch.Generator().manual_seed(3)) + 0.1
    _combine(shares, points, out)
    assert out[5, 3].isnan()
    assert out[9, 0].isinf()
    assert int((~out.isfinite()).sum()) == 2
    bad = ~row_changes(points[0], points[1])[0].isfinite()
    assert bad.nonzero().flatten().tolist() == [5]


@EACH_TYPE
@pytest.mark.parametrize("spec", ["anderson:12", "anderson:12:1e-2", "picard:12"])
def test_solves_agree(spec: str, dtype: torch.dtype, without):
    g = torch.Generator().manual_seed(4)
    weight = torch.randn(64, 64, generator=g) / 12
    x = torch.randn(70, 64, generator=g)

    def solved():
        def cell(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(z.float() @ weight + x).to(z.dtype)

        return solve(cell, torch.zeros_like(x).to(dtype), x, spec=spec)

    fast, plain = solved(), without(solved)
    assert torch.equal(fast.status, plain.status)
    assert isinstance(fast.state, torch.Tensor)
    assert isinstance(plain.state, torch.Tensor)
    apart = (fast.state.float() - plain.state.float()).norm(dim=1) / plain.state.float().norm(dim=1)
    eps = torch.finfo(dtype).eps
    assert apart.max() < 2 * eps
    assert apart.median() < eps / 2
