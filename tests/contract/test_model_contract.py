"""What every equilibrium model must keep, whoever wrote it (DESIGN "Public names", THEORY 1.1)."""

from __future__ import annotations

import copy
import importlib.util
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deqcert.models import (
    MDEQ,
    EquilibriumModel,
    GradientSpec,
    build,
    from_classifier,
    from_functions,
    inference_copy,
    load_weights,
    save_model,
    solve_rows,
    weights_digest,
)
from deqcert.solvers import SolverSpec, map_tree
from tests.models.made import make_contractive, tiny_mdeq, tiny_mondeq, use_batch_statistics

SOLVERS = ("picard:6", "anderson:9:1e-3", "broyden:9:1e-3")


def _example(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Parts(nn.Module):
    """Weights of a two-resolution DEQ written elsewhere, its injection a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.mix = nn.Conv2d(4, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 2, 3, stride=2, padding=1)
        self.read = nn.Linear(2 * 9, 3)


def _inject(net: _Parts, x: Tensor) -> dict[str, Any]:
    return {"top": net.stem(x), "unused": None, "scale": (torch.full_like(x[:, :1, :1, :1], 0.3),)}


def _start(net: _Parts, injection: dict[str, Any]) -> tuple[Tensor, Tensor]:
    top = injection["top"]
    return torch.zeros_like(top), top.new_zeros(len(top), 2, 3, 3)


def _cell(net: _Parts, state: tuple[Tensor, Tensor], injection: dict[str, Any]) -> Any:
    top = torch.tanh(injection["scale"][0] * net.mix(state[0]) + injection["top"])
    return top, torch.tanh(net.down(top) + 0.2 * state[1])


def _classify(net: _Parts, state: tuple[Tensor, Tensor]) -> Tensor:
    return net.read(state[1].flatten(1))


def _functions() -> EquilibriumModel:
    return from_functions(
        _Parts(),
        inject=_inject,
        initial_state=_start,
        cell=_cell,
        classify=_classify,
        num_classes=3,
        input_shape=(1, 6, 6),
    )


def _plain() -> EquilibriumModel:
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 4),
    )
    return from_classifier(net, num_classes=4, input_shape=(1, 8, 8))


BUILDERS: dict[str, Callable[[], EquilibriumModel]] = {
    "mdeq-digits": lambda: build("mdeq-digits"),
    "mdeq-1-pool": lambda: tiny_mdeq(1),
    "mdeq-2-flatten": lambda: tiny_mdeq(2),
    "mdeq-3-bottleneck": lambda: tiny_mdeq(3, dropout=0.2),
    "mondeq-dense": lambda: tiny_mondeq(),
    "mondeq-dense-reflections": lambda: tiny_mondeq(splitting="peaceman-rachford"),
    "mondeq-dense-absolute": lambda: tiny_mondeq(constraint="absolute", m=0.5),
    "mondeq-conv": lambda: tiny_mondeq(kind="conv", width=4),
    "mondeq-conv-absolute": lambda: tiny_mondeq(kind="conv", width=4, constraint="absolute", m=0.5),
    "from_functions": _functions,
    "from_classifier": _plain,
    "own_deq": lambda: _example("own_deq").OwnDEQ(width=24),
}


@dataclass(frozen=True)
class Case:
    model: EquilibriumModel
    x: Tensor  # (16, C, H, W)


@pytest.fixture(params=sorted(BUILDERS))
def case(request) -> Case:
    torch.manual_seed(11)
    model = BUILDERS[request.param]()
    x = torch.rand(16, *model.input_shape)
    use_batch_statistics(model, x)
    if isinstance(model, MDEQ):
        make_contractive(model)
    return Case(model.eval(), x)


def _shapes(tree: Any) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []

    def note(part: Tensor) -> Tensor:
        found.append(tuple(part.shape))
        return part

    map_tree(note, tree)
    return found


def _logits(model: EquilibriumModel, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def test_cell_keeps_the_structure_of_the_state(case):
    model = case.model
    injection = model.inject(case.x)
    state = model.initial_state(injection)
    following = model.cell(state, injection)
    assert isinstance(following, Tensor) == isinstance(state, Tensor)
    assert _shapes(following) == _shapes(state)
    assert {shape[0] for shape in _shapes(injection) + _shapes(state)} == {16}
    assert model.classify(following).shape == (16, model.num_classes)
    assert isinstance(model.solver, SolverSpec)


def test_cell_treats_rows_alone(case):
    # The logits of a row must not move when all other rows change.
    model, other = case.model, torch.rand_like(case.x)
    other[5] = case.x[5]
    torch.testing.assert_close(
        _logits(model, other)[5], _logits(model, case.x)[5], rtol=1e-4, atol=1e-4
    )


def test_eval_is_deterministic(case):
    assert torch.equal(_logits(case.model, case.x), _logits(case.model, case.x))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_row_is_the_same_in_any_batch_and_any_place(case, solver):
    model, spec = inference_copy(case.model), SolverSpec.parse(solver)
    x = torch.rand(400, *model.input_shape)
    whole, solution = solve_rows(model, x, spec)
    order = torch.randperm(400)
    shuffled, moved = solve_rows(model, x[order], spec)
    torch.testing.assert_close(shuffled, whole[order], rtol=1e-4, atol=1e-4)
    assert torch.equal(moved.steps, solution.steps[order])
    for count in (1, 7, 16):
        part, alone = solve_rows(model, x[:count], spec)
        torch.testing.assert_close(part, whole[:count], rtol=1e-4, atol=1e-4)
        assert torch.equal(alone.steps, solution.steps[:count])
        assert torch.equal(part.argmax(1), whole[:count].argmax(1))


def test_forward_without_gradients_pads(case):
    model, x = case.model, torch.rand(7, *case.model.input_shape)
    whole = _logits(model, torch.cat([x, case.x]))
    torch.testing.assert_close(_logits(model, x), whole[:7], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(_logits(model, x[:1]), whole[:1], rtol=1e-4, atol=1e-4)


def test_forward_is_the_same_with_and_without_gradients(case):
    out = case.model(case.x)
    assert out.requires_grad
    torch.testing.assert_close(out, _logits(case.model, case.x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["implicit", "unrolled", "phantom"])
def test_training_reaches_every_parameter(case, method):
    model = case.model.train()
    model.gradient = GradientSpec(method=method, steps=3)
    model(case.x).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_copies_compute_the_same_and_are_independent(case):
    expected = _logits(case.model, case.x)
    case.model(case.x).sum().backward()  # a used model must copy as well as a fresh one
    copies = [copy.deepcopy(case.model)]
    if type(case.model).__module__ != "own_deq":  # loaded from a file path: pickle cannot import it
        copies.append(pickle.loads(pickle.dumps(case.model)))
    for made in copies:
        assert weights_digest(made) == weights_digest(case.model)
        assert torch.equal(_logits(made, case.x), expected)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.zero_()
    assert torch.equal(_logits(case.model, case.x), expected)


def test_state_dict_and_checkpoint_round_trips(case, tmp_path):
    expected, digest = _logits(case.model, case.x), weights_digest(case.model)
    path = save_model(case.model, tmp_path / "model.safetensors", card={"sigma": 0.5})
    by_dict, by_file = copy.deepcopy(case.model), copy.deepcopy(case.model)
    for made in (by_dict, by_file):
        with torch.no_grad():
            for tensor in made.state_dict().values():
                tensor.zero_()
        assert weights_digest(made) != digest
    by_dict.load_state_dict(case.model.state_dict())
    load_weights(by_file, path)
    for made in (by_dict, by_file):
        assert weights_digest(made) == digest
        assert torch.equal(_logits(made, case.x), expected)
    assert by_file.card == {"sigma": 0.5}


def test_inference_copy_is_the_same_function(case):
    model = case.model.double().train()
    digest, x = weights_digest(model), case.x.double()
    folded = inference_copy(model)
    expected = _logits(model.eval(), x)
    torch.testing.assert_close(_logits(folded, x), expected, rtol=1e-9, atol=1e-9)
    assert not folded.training
    assert not any(p.requires_grad for p in folded.parameters())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    assert weights_digest(model) == digest
    assert all(p.requires_grad for p in model.parameters())


def test_inference_copy_takes_a_precision(case):
    for dtype, tolerance in ((torch.float64, 1e-4), (torch.bfloat16, 0.1)):
        folded = inference_copy(case.model, dtype=dtype)
        logits, _ = solve_rows(folded, case.x.to(dtype), "picard:6")
        expected, _ = solve_rows(case.model, case.x, "picard:6")
        assert logits.dtype in (dtype, torch.float32)  # an MDEQ's logits keep float32
        scale = float(expected.abs().max())
        assert float((logits.float() - expected).abs().mean()) < tolerance * scale


def _settled(model: EquilibriumModel) -> EquilibriumModel:
    """A float64 copy that solves to rounding, forwards and backwards."""
    model = copy.deepcopy(model).double()
    if model.solver != SolverSpec.parse("picard:1"):
        model.solver = SolverSpec.parse("picard:90:1e-14")
        model.gradient = GradientSpec(solver=SolverSpec.parse("picard:90:1e-14"))
    return model


def test_gradients_equal_finite_differences(case):
    model, x = _settled(case.model), case.x[:4].double()
    weight = torch.randn(4, model.num_classes).double()
    wanted = list(model.parameters())
    x.requires_grad_()
    grads = torch.autograd.grad((model(x) * weight).sum(), [x, *wanted])
    # Steps in proportion to what they change: plain convolutions start a hundred times narrower.
    directions = [torch.randn_like(p) * p.detach().square().mean().sqrt() for p in (x, *wanted)]
    slope = sum(float((g * d).sum()) for g, d in zip(grads, directions, strict=True))

    def value(step: float) -> float:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for p, d in zip(moved.parameters(), directions[1:], strict=True):
                p.add_(d, alpha=step)
            return float((moved(x + step * directions[0]) * weight).sum())

    h = 1e-7  # small enough to cross no kink, far above rounding in float64
    numeric = (value(h) - value(-h)) / (2 * h)
    assert numeric == pytest.approx(slope, rel=1e-5)


def test_gradients_equal_long_unrolling(case):
    model, x = _settled(case.model), case.x[:4].double()
    wanted = list(model.parameters())
    implicit = torch.autograd.grad(model(x).square().sum(), wanted)
    model.gradient = GradientSpec(method="unrolled", steps=60)
    unrolled = torch.autograd.grad(model(x).square().sum(), wanted)
    for a, b in zip(implicit, unrolled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
