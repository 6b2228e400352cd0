"""Inner products: right, and bitwise the same for a row wherever it stands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from deqcert.solvers.reduce import row_distance, row_dot


@pytest.fixture(params=[1, 2, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("features", [1, 37, 1536, 40_000])
@pytest.mark.usefixtures("threads")
def test_a_row_does_not_depend_on_its_batch(features: int) -> None:
    g = torch.Generator().manual_seed(features)
    x, y = (torch.randn(61, features, generator=g) for _ in range(2))
    for reduce in (row_dot, row_distance):
        whole = reduce(x, y)
        for first, count in ((0, 1), (60, 1), (7, 2), (3, 7), (5, 16), (0, 33)):
            rows = slice(first, first + count)
            assert torch.equal(reduce(x[rows], y[rows]), whole[rows])


@pytest.mark.parametrize("features", [1, 37, 1536, 40_000])
def test_values_against_float64(features: int) -> None:
    g = torch.Generator().manual_seed(features)
    x, y = (torch.randn(9, features, generator=g) for _ in range(2))
    a, b = x.double(), y.double()
    scale = a.norm(dim=1) * b.norm(dim=1)
    assert ((row_dot(x, y) - (a * b).sum(1)).abs() <= 1e-6 * scale).all()
    torch.testing.assert_close(row_distance(x, y), (a - b).square().sum(1), rtol=1e-6, atol=0)


def test_half_precision_is_widened() -> None:
    x = torch.full((4, 4096), 0.1, dtype=torch.bfloat16)
    value = float(x[0, 0])
    torch.testing.assert_close(
        row_dot(x, x), torch.full((4,), 4096 * value**2, dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_nan_stays_in_its_row() -> None:
    x = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    clean = row_dot(x, x)
    dirty = x.clone()
    dirty[3, 5] = torch.nan
    got = row_dot(dirty, dirty)
    assert got[3].isnan()
    others = torch.arange(8) != 3
    assert torch.equal(got[others], clean[others])
