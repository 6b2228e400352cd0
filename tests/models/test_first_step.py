"""The first step from the model's own start: the same as a cell evaluation, for a fifth of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from deqcert.models import EquilibriumModel, build, inference_copy
from deqcert.models.rows import solve_rows

CONFIGS: dict[str, dict[str, Any]] = {
    "two resolutions": {},
    "one resolution": {"channels": (16,), "head_channels": (16,)},
    "learned start": {"learned_start": True},
}


def made(name: str) -> EquilibriumModel:
    torch.manual_seed(0)
    return build("mdeq-digits", **CONFIGS[name]).eval()


def images(rows: int) -> Tensor:
    return torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def first_and_cell(model: EquilibriumModel, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    injection = model.inject(x)
    state = model.initial_state(injection)
    first, whole = model.first_step(state, injection), model.cell(state, injection)
    return list(zip(first, whole, strict=True))


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_the_cell_at_the_start(name: str) -> None:
    for first, whole in first_and_cell(made(name), images(5)):
        torch.testing.assert_close(first, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_the_fast_cell_at_the_start(name: str, dtype: torch.dtype) -> None:
    pytest.importorskip("numba", reason="the fast cell is compiled by numba")
    model = inference_copy(made(name), dtype=dtype)
    with torch.no_grad():
        pairs = first_and_cell(model, images(48).to(dtype))
    for first, whole in pairs:
        assert first.stride() == whole.stride()
        tolerance = 1e-5 if dtype == torch.float32 else 3e-2
        torch.testing.assert_close(first, whole, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_bits_depend_on_neither_batch_nor_threads(dtype: torch.dtype) -> None:
    pytest.importorskip("numba", reason="the fast cell is compiled by numba")
    model = inference_copy(made("two resolutions"), dtype=dtype)
    x = images(400).to(dtype)
    threads = torch.get_num_threads()
    logits, _ = solve_rows(model, x, "picard:2")
    try:
        torch.set_num_threads(2)
        shared, _ = solve_rows(model, x, "picard:2")
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(logits, shared)
    for rows in (16, 64, 100):
        assert torch.equal(solve_rows(model, x[:rows], "picard:2")[0], logits[:rows])


def test_solves_from_the_start_begin_with_it_and_warm_ones_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = made("two resolutions"), images(16)
    calls: list[str] = []
    for name in ("first_step", "cell"):
        call = getattr(model, name)

        def noted(*given: Any, name: str = name, call: Any = call) -> Any:
            calls.append(name)
            return call(*given)

        monkeypatch.setattr(model, name, noted)
    _, solution = solve_rows(model, x, "picard:3")
    assert calls == ["first_step", "cell", "cell"]
    calls.clear()
    solve_rows(model, x, "anderson:3:1e-9")
    assert calls == ["first_step", "cell", "cell"]
    calls.clear()
    solve_rows(model, x, "picard:2", solution.state)
    assert calls == ["cell", "cell"]


def test_its_gradients_are_those_of_the_cell() -> None:
    model = made("two resolutions").train()
    injection = model.inject(images(6))
    state = model.initial_state(injection)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradients(next_state: Any) -> list[Tensor | None]:
        loss = sum(part.square().sum() for part in next_state)
        return list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True))

    masked = (injection[0], None)
    for first, whole in zip(
        gradients(model.first_step(state, masked)),
        gradients(model.cell(state, masked)),
        strict=True,
    ):
        assert (first is None) == (whole is None)
        if first is not None and whole is not None:
            torch.testing.assert_close(first, whole, rtol=1e-3, atol=1e-4)


def test_dropout_masks_differ_by_row() -> None:
    model = build("mdeq-digits", dropout=0.5).train()
    torch.manual_seed(0)
    for first, whole in first_and_cell(model, images(4)):
        torch.testing.assert_close(first, whole, rtol=1e-4, atol=1e-5)
