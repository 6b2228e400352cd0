"""Which kernels a pass goes to, and the look at those of a GPU before they are used."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deqcert.errors import PerformanceWarning
from deqcert.solvers import agreement, compiled, solve
from deqcert.solvers.agreement import agree, what_is_wrong
from deqcert.solvers.anderson import mixing_weights

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
KINDS = [torch.float32, torch.bfloat16, torch.float64]


class Plain:
    """Stands for `gpu_rows`: PyTorch, whose results may be spoilt."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.calls = 0

    def dots(self, window: Any, slot: int, out: Any) -> bool:
        return self._write(out, (window.double() * window[slot].double()).sum(-1))

    def combine(self, shares: Any, points: Any, out: Any) -> bool:
        pairs = zip(shares.double(), points, strict=True)
        return self._write(out, torch.stack([s[:, None] * p.double() for s, p in pairs]).sum(0))

    def changes(self, x: Any, y: Any, out: Any) -> bool:
        a, b = x.double(), y.double()
        return self._write(out, torch.stack([(b - a).square().sum(-1), b.square().sum(-1)]))

    def eliminate(self, gram: Any, ridge: float, eps: float, out: Any) -> bool:
        return self._write(out, mixing_weights(gram.permute(2, 0, 1), ridge, eps).t())

    def _write(self, out: Any, value: Any) -> bool:
        self.calls += 1
        out.copy_(self.factor * value)
        return True


class Broken(Plain):
    def _write(self, out: Any, value: Any) -> bool:
        super()._write(out, value)
        raise RuntimeError("no compiler\nand a long story")


@pytest.fixture(autouse=True)
def _nothing_found(monkeypatch):
    monkeypatch.setattr(agreement, "_found", {})
    monkeypatch.setattr(agreement, "_is_recorded", lambda device: False)


@pytest.mark.parametrize("dtype", KINDS)
def test_what_agrees_is_used_without_another_look(dtype):
    kernels = Plain()
    assert agree(kernels, CPU, dtype)
    calls = kernels.calls
    assert calls > 0
    assert agree(kernels, CPU, dtype)
    assert kernels.calls == calls


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("factor", [1.05, float("nan"), 0.0])
def test_wrong_numbers_are_seen(factor, dtype):
    assert "differ by" in what_is_wrong(Plain(factor), CPU, dtype)


@pytest.mark.parametrize("dtype", KINDS)
def test_what_fails_is_not_tried_again(dtype):
    kernels = Broken()
    with pytest.warns(PerformanceWarning, match="by PyTorch, not by Triton: no compiler$"):
        assert not agree(kernels, CPU, dtype)
    assert not agree(kernels, CPU, dtype)
    assert kernels.calls == 1


def test_nothing_is_looked_at_while_a_graph_is_recorded(monkeypatch):
    kernels = Plain()
    with monkeypatch.context() as recording:
        recording.setattr(agreement, "_is_recorded", lambda device: True)
        assert not agree(kernels, CPU, torch.float32)
        assert kernels.calls == 0
    assert agree(kernels, CPU, torch.float32)
    monkeypatch.setattr(agreement, "_is_recorded", lambda device: True)
    assert agree(kernels, CPU, torch.float32)  # known by now


def passes(device: torch.device, dtype: torch.dtype) -> list[Any]:
    """All passes, called with what has a device and a type, and no numbers."""
    x: Any = SimpleNamespace(device=device, dtype=dtype)
    gram: Any = SimpleNamespace(device=device, dtype=torch.float64)
    return [
        lambda: compiled.dots(x, 0, x),
        lambda: compiled.combine(x, [x, x], x),
        lambda: compiled.changes(x, x, x),
        lambda: compiled.eliminate(gram, 1e-4, 1e-7, gram),
    ]


class Noting:
    """Stands for `gpu_rows` and notes which pass was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.asked.append(name) is None


@pytest.fixture
def gpu(monkeypatch):
    kernels = Noting()
    monkeypatch.setattr(compiled, "_gpu_kernels", lambda: kernels)
    monkeypatch.setattr(compiled, "is_known_gpu", lambda device: True)
    monkeypatch.setattr(compiled, "agree", lambda *_: True)
    return kernels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_gets_its_own_kernels(dtype, gpu):
    assert all(work() for work in passes(GPU, dtype))
    assert gpu.asked == ["dots", "combine", "changes", "eliminate"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions_stay_with_pytorch(dtype, gpu):
    assert [work() for work in passes(GPU, dtype)] == [False, False, False, True]
    assert gpu.asked == ["eliminate"]


@pytest.mark.parametrize("name", ["_gpu_kernels", "is_known_gpu", "agree"])
def test_without_kernels_to_trust_pytorch_computes(name, gpu, monkeypatch):
    monkeypatch.setattr(compiled, name, lambda *_: None)
    assert not any(work() for work in passes(GPU, torch.float32))
    assert gpu.asked == []


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_devices_never_get_those_of_a_gpu(dtype, device, gpu):
    start = torch.zeros(3, 40, dtype=dtype, device=device)
    solve(lambda z, _: 0.5 * z + 1, start, spec="anderson:4")
    assert gpu.asked == []
