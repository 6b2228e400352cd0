"""Inner products: right, and bitwise the same for a row wherever it stands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from deqcert.solvers.reduce import row_changes, row_dot, window_dots, window_width


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
    for reduce in (row_dot, row_changes, _pair_dots):
        whole = reduce(x, y)
        for first, count in ((0, 1), (60, 1), (7, 2), (3, 7), (5, 16), (0, 33)):
            rows = slice(first, first + count)
            assert torch.equal(reduce(x[rows], y[rows]), whole[..., rows])


def _pair_dots(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # (2, rows)
    """Return y . y and y . x by `window_dots`."""
    window = torch.zeros(2, len(x), window_width(x.shape[1]))
    window[0, :, : x.shape[1]], window[1, :, : x.shape[1]] = y, x
    return window_dots(window, 0)


@pytest.mark.parametrize("features", [1, 37, 1536, 40_000])
def test_values_against_float64(features: int) -> None:
    g = torch.Generator().manual_seed(features)
    x, y = (torch.randn(9, features, generator=g) for _ in range(2))
    a, b = x.double(), y.double()
    scale = a.norm(dim=1) * b.norm(dim=1)
    assert ((row_dot(x, y) - (a * b).sum(1)).abs() <= 1e-6 * scale).all()
    assert ((_pair_dots(x, y)[1] - (a * b).sum(1)).abs() <= 3e-7 * scale).all()
    change, size = row_changes(x, y)
    torch.testing.assert_close(change, (a - b).square().sum(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(size, b.square().sum(1), rtol=1e-6, atol=0)


def test_half_precision_is_widened() -> None:
    x = torch.full((4, 4096), 0.1, dtype=torch.bfloat16)
    value = float(x[0, 0])
    torch.testing.assert_close(
        row_dot(x, x), torch.full((4,), 4096 * value**2, dtype=torch.float64), rtol=1e-6, atol=0
    )
    other = torch.full_like(x, 0.1015625)  # the difference has 8 bits, its square has more
    change, size = row_changes(other, x)
    assert torch.equal(change, torch.full_like(change, 4096 * (value - 0.1015625) ** 2))
    torch.testing.assert_close(size, torch.full_like(size, 4096 * value**2), rtol=1e-5, atol=0)


def test_nan_stays_in_its_row() -> None:
    x = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    dirty = x.clone()
    dirty[3, 5] = torch.nan
    others = torch.arange(8) != 3
    for reduce in (row_dot, row_changes, _pair_dots):
        clean, got = reduce(x, x), reduce(dirty, dirty)
        assert got[..., 3].isnan().all()
        assert torch.equal(got[..., others], clean[..., others])
