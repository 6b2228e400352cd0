"""The Triton kernels, run by Triton's interpreter on tensors of the CPU (see `test_triton.py`).

Against the same formulas in PyTorch, float64.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from deqcert.solvers import compiled, gpu_rows, solve
from deqcert.solvers.agreement import what_is_wrong
from deqcert.solvers.anderson import mixing_weights
from deqcert.solvers.reduce import window_width

assert os.environ.get("TRITON_INTERPRET") == "1", "to be run with TRITON_INTERPRET=1"

SINGLE, HALF = torch.float32, torch.bfloat16
EPS = torch.finfo(SINGLE).eps
# Triton's interpreter cuts off the bits that bfloat16 has no room for, where a GPU rounds to the
# nearest (`test_triton.py` looks at the machine code).
ROUNDING = {SINGLE: 2.0**-24, HALF: 2.0**-7}
precisions = pytest.mark.parametrize("dtype", [SINGLE, HALF])
# What the interpreter says of NaN and of pivots that are zero.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|divide by zero):RuntimeWarning")


def rows_of(count: int, rows: int, features: int, dtype: torch.dtype, *, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, rows, features, generator=g).to(dtype)


def window_of(slots: int, rows: int, features: int, dtype: torch.dtype) -> Tensor:
    window = torch.zeros(slots, rows, window_width(features), dtype=dtype)
    window[:, :, :features] = rows_of(slots, rows, features, dtype)
    return window


def dots(window: Tensor, slot: int) -> Tensor:
    out = torch.full(window.shape[:2], torch.nan, dtype=torch.float64)
    assert gpu_rows.dots(window, slot, out)
    return out


def changes(x: Tensor, y: Tensor) -> Tensor:
    out = torch.full((2, len(x)), torch.nan, dtype=torch.float64)
    assert gpu_rows.changes(x, y, out)
    return out


def combined(shares: Tensor, points: list[Tensor]) -> Tensor:
    out = torch.full_like(points[0], torch.nan)
    assert gpu_rows.combine(shares, points, out)
    return out


def weights_of(gram: Tensor, ridge: float = 1e-4) -> Tensor:  # (B, P, P) -> (B, P)
    out = gram.new_full((gram.shape[1], len(gram)), torch.nan)
    assert gpu_rows.eliminate(gram.permute(1, 2, 0), ridge, EPS, out)
    return out.t()


@precisions
@pytest.mark.parametrize(
    ("slots", "features"),
    [(1, 1), (2, 37), (3, 1536), (4, 16), (5, 48), (6, 5000), (8, 600), (9, 700)],
)
def test_products(slots, features, dtype):
    window, slot = window_of(slots, 3, features, dtype), slots // 2
    x = window.double()
    exact, size = (x * x[slot]).sum(-1), x.norm(dim=-1)
    assert bool(((dots(window, slot) - exact).abs() <= 3e-7 * size * size[slot]).all())


@precisions
@pytest.mark.parametrize(("rows", "features"), [(1, 1), (3, 37), (2, 2048), (1, 5000)])
def test_changes(rows, features, dtype):
    x, y = rows_of(2, rows, features, dtype)
    a, b = x.double(), y.double()
    exact = torch.stack([(b - a).square().sum(-1), b.square().sum(-1)])
    torch.testing.assert_close(changes(x, y), exact, rtol=5e-7, atol=0.0)


@precisions
@pytest.mark.parametrize("pairs", [1, 2, 3, 4, 5, 6, 7, 8])
def test_weighted_sums(pairs, dtype):
    points = list(rows_of(pairs, 2, 1030 if pairs == 6 else 37, dtype))
    shares = rows_of(1, pairs, 2, SINGLE, seed=1)[0]
    terms = [s.double()[:, None] * p.double() for s, p in zip(shares, points, strict=True)]
    exact, size = torch.stack(terms).sum(0), torch.stack(terms).abs().sum(0)
    found = combined(shares, points)
    assert found.dtype == dtype
    near = ROUNDING[dtype] * exact.abs() + pairs * 2.0**-23 * size
    assert bool(((found.double() - exact).abs() <= near).all())


def test_sums_of_float32_round_every_product_and_every_sum():
    points, shares = list(rows_of(6, 2, 37, SINGLE)), rows_of(1, 6, 2, SINGLE, seed=1)[0]
    expected = shares[0][:, None] * points[0]
    for share, point in zip(shares[1:], points[1:], strict=True):
        expected = expected + share[:, None] * point
    assert torch.equal(combined(shares, points), expected)


def test_more_points_than_arguments_are_refused():
    points, shares = list(rows_of(9, 2, 8, SINGLE)), torch.ones(9, 2)
    assert not gpu_rows.combine(shares, points, torch.empty_like(points[0]))
    gram = torch.eye(9, dtype=torch.float64)[:, :, None]
    assert not gpu_rows.eliminate(gram, 0.0, EPS, gram.new_empty(9, 1))


@precisions
def test_rows_may_lie_anywhere(dtype):
    whole = rows_of(3, 5, 7, dtype)
    shares = rows_of(1, 2, 4, SINGLE, seed=1)[0]
    x, y, out = (part[1:] for part in whole)
    apart = torch.empty(4, 9, dtype=dtype)[:, 1:8]
    assert x.data_ptr() % 16
    expected = combined(shares, [x.clone(), y.clone()])
    for target in (out, apart):
        assert gpu_rows.combine(shares, [x, y], target)
        assert torch.equal(target, expected)
    wide = whole.repeat(1, 1, 2)
    assert torch.equal(changes(wide[0, 1:, :7], wide[1, 1:, :7]), changes(x.clone(), y.clone()))
    window = window_of(3, 6, 37, dtype)
    moved = torch.empty(window.numel() + 1, dtype=dtype)[1:].view_as(window).copy_(window)
    assert moved.data_ptr() % 16
    assert torch.equal(dots(moved[:, 2:4], 1), dots(window, 1)[:, 2:4])


@precisions
def test_a_row_does_not_depend_on_its_batch(dtype):
    window, points = window_of(5, 9, 1100, dtype), list(rows_of(3, 9, 37, dtype))
    shares, (x, y) = torch.rand(3, 9), rows_of(2, 9, 2100, dtype)
    found = dots(window, 4), changes(x, y), combined(shares, points)
    for rows in (slice(0, 1), slice(7, 9)):
        for part in (window[:, rows], window[:, rows].contiguous()):  # slots apart, and not
            assert torch.equal(dots(part, 4), found[0][:, rows])
        assert torch.equal(changes(x[rows], y[rows]), found[1][:, rows])
        some = combined(shares[:, rows], [point[rows] for point in points])
        assert torch.equal(some, found[2][rows])
    # Nor on how many slots there are.
    assert torch.equal(dots(window[1:], 3), found[0][1:])


def test_weights_do_not_depend_on_the_batch():
    residuals = torch.randn(70, 6, 40, dtype=torch.float64)
    gram = residuals @ residuals.mT
    whole = weights_of(gram)
    for rows in (slice(0, 1), slice(31, 33), slice(69, 70)):
        assert torch.equal(weights_of(gram[rows]), whole[rows])


@precisions
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_row(bad, dtype):
    window, shares = window_of(3, 5, 37, dtype), torch.rand(3, 5) + 0.1
    spoilt = window.clone()
    spoilt[1, 2, 3] = bad
    others = torch.arange(5) != 2
    found = []
    for given in (window, spoilt):
        total = combined(shares, list(given)).t()
        found.append((dots(given, 1), changes(given[0], given[1]), total))
    for clean, dirty in zip(*found, strict=True):
        assert torch.equal(dirty[:, others], clean[:, others])
        assert not bool(dirty[:, 2].isfinite().all())
    assert not bool(found[1][0][:, 2].isfinite().any())
    assert int((~found[1][2].isfinite()).sum()) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("rows", [1, 33])
def test_weights(rows, size, monkeypatch):
    g = torch.Generator().manual_seed(5)
    residuals = torch.randn(rows, size, 40, generator=g, dtype=torch.float64)
    if rows > 1:
        residuals[-1, 0] = 0  # at its fixed point
        residuals[rows // 2, size // 2 :] = residuals[rows // 2, :1]  # dependent pairs
        residuals[0] = 0
        residuals[rows // 3, -1] = torch.nan
    gram = residuals @ residuals.mT
    monkeypatch.setattr(compiled, "eliminate", lambda *_: False)
    for ridge in (1e-4, 0.0):
        expected = mixing_weights(gram, ridge, EPS)
        close = {"rtol": 1e-9, "atol": 1e-9, "equal_nan": True}
        torch.testing.assert_close(weights_of(gram, ridge), expected, **close)


@pytest.mark.parametrize("dtype", [SINGLE, HALF, torch.float64])
def test_the_look_before_their_first_use_is_content(dtype):
    assert what_is_wrong(gpu_rows, torch.device("cpu"), dtype) == ""


@precisions
def test_whole_solves(dtype, monkeypatch):
    g = torch.Generator().manual_seed(4)
    weight, x = torch.randn(24, 24, generator=g) / 8, torch.randn(3, 24, generator=g)

    def cell(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z.float() @ weight + x).to(z.dtype)

    start = torch.zeros_like(x).to(dtype)
    expected = solve(cell, start.double(), x, spec="anderson:4").state
    for name in ("dots", "combine", "changes", "eliminate"):
        monkeypatch.setattr(compiled, name, getattr(gpu_rows, name))
    found = solve(cell, start, x, spec="anderson:4")
    assert isinstance(expected, Tensor)
    assert isinstance(found.state, Tensor)
    apart = (found.state.double() - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(apart.max()) < {SINGLE: 1e-5, HALF: 0.02}[dtype]
