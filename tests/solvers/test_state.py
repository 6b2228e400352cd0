"""Flattening states, picking rows out of nested structures, batch sizes."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from deqcert.errors import ConfigurationError
from deqcert.solvers import select_rows, solve
from deqcert.solvers.batching import DEFAULT_SIZES, check_sizes, padded_rows, padded_size
from deqcert.solvers.state import Layout, batch_rows


def test_flatten_and_back_is_the_identity() -> None:
    g = torch.Generator().manual_seed(0)
    plain = torch.randn(3, 4, 2, 5, generator=g)
    last = torch.randn(3, 4, 6, 5, generator=g).contiguous(memory_format=torch.channels_last)
    vector = torch.randn(3, 7, generator=g)
    state = (plain, last, vector)
    layout = Layout.of(state)
    flat = layout.flatten(state)
    assert flat.shape == (3, layout.features) == (3, 40 + 120 + 7)
    back = layout.unflatten(flat)
    for got, want in zip(back, state, strict=True):
        assert torch.equal(got, want)
    assert back[0].is_contiguous()
    assert back[1].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_single_tensor_is_flattened_without_a_copy(memory_format: torch.memory_format) -> None:
    state = torch.randn(2, 3, 4, 5).contiguous(memory_format=memory_format)
    layout = Layout.of(state)
    flat = layout.flatten(state)
    back = layout.unflatten(flat)
    assert isinstance(back, torch.Tensor)
    assert flat.data_ptr() == state.data_ptr() == back.data_ptr()
    assert back.stride() == state.stride()


def test_picked_rows_keep_their_memory_order() -> None:
    x = torch.randn(4, 3, 5, 2).contiguous(memory_format=torch.channels_last)
    got = select_rows(x, torch.tensor([2, 2, 0]))
    assert torch.equal(got, x[[2, 2, 0]])
    assert got.is_contiguous(memory_format=torch.channels_last)


class Pair(NamedTuple):
    a: torch.Tensor
    b: object


def test_select_rows_walks_nested_structures() -> None:
    x = torch.arange(12.0).reshape(4, 3)
    rows = torch.tensor([3, 0])
    tree = {"x": x, "deep": [(x, None), Pair(x, 5)], "name": "cell"}
    got = select_rows(tree, rows)
    assert torch.equal(got["x"], x[[3, 0]])
    assert torch.equal(got["deep"][0][0], x[[3, 0]])
    assert isinstance(got["deep"][1], Pair)
    assert torch.equal(got["deep"][1].a, x[[3, 0]])
    assert got["deep"][0][1] is None
    assert got["deep"][1].b == 5
    assert got["name"] == "cell"


@pytest.mark.parametrize(
    "state",
    [
        (),
        torch.tensor(1.0),
        (torch.zeros(3, 2), torch.zeros(4, 2)),
        (torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.float64)),
    ],
)
def test_states_that_are_no_batch_are_refused(state: object) -> None:
    with pytest.raises(ConfigurationError, match="state"):
        batch_rows(state)  # pyright: ignore[reportArgumentType]


def test_cells_must_keep_the_build_of_the_state() -> None:
    z = torch.zeros(16, 4)
    for wrong in (z[:, :2], (z,), z.double(), z[:8]):
        with pytest.raises(ConfigurationError, match="built like"):
            solve(lambda state, injection, wrong=wrong: wrong, z, spec="picard:1")


def test_padded_sizes() -> None:
    assert [padded_size(n, DEFAULT_SIZES) for n in (1, 16, 17, 400, 401, 512, 513)] == [
        16,
        16,
        32,
        400,
        512,
        512,
        528,
    ]
    assert padded_size(401, (400,)) == 800
    assert padded_size(7, (1,)) == 7
    assert all(size % 2 == 0 and size >= 16 for size in DEFAULT_SIZES)
    assert check_sizes((64, 16)) == (16, 64)
    assert padded_rows(torch.tensor([4, 9]), 5).tolist() == [4, 9, 4, 9, 4]


@pytest.mark.parametrize("sizes", [(), (0,), (-2, 4), (2.0,)])
def test_bad_sizes_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="batch sizes"):
        solve(lambda z, x: z, torch.zeros(2, 2), spec="picard:1", sizes=sizes)
