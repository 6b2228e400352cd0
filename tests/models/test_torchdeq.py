"""DEQs of the real torchdeq: the same fixed points, found row by row."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from deqcert.errors import ConfigurationError
from deqcert.models import from_torchdeq, inference_copy
from deqcert.smoothing import Certifier

torchdeq = pytest.importorskip("torchdeq", reason="needs torchdeq")


class Net(nn.Module):
    """An ordinary model of torchdeq's users, of one or of two states."""

    def __init__(self, *, norm: str | None = None, dropout: float = 0.0, **settings: Any) -> None:
        super().__init__()
        self.encode, self.head = nn.Linear(16, 12), nn.Linear(12, 3)
        self.mix, self.back = nn.Linear(12, 12), nn.Linear(12, 12)
        self.drop = torchdeq.dropout.VariationalDropout(dropout)
        with torch.no_grad():
            self.mix.weight.mul_(0.8)
            self.back.weight.mul_(0.8)
        if norm is not None:
            torchdeq.apply_norm(self.mix, norm)
        kwargs = {"f_solver": "anderson", "f_max_iter": 40, "f_tol": 1e-7, "f_stop_mode": "rel"}
        self.deq = torchdeq.get_deq(**{**kwargs, **settings})

    def start(self, u):
        return torch.zeros_like(u)

    def f(self, u):
        return lambda z: torch.tanh(self.drop(self.mix(z)) + u)

    def forward(self, x):
        torchdeq.reset_deq(self)
        u = self.encode(x.flatten(1))
        return self.head(self.deq(self.f(u), self.start(u))[0][-1])


class TwoStates(Net):
    def start(self, u):
        return [torch.zeros_like(u), torch.zeros_like(u)]

    def f(self, u):
        return lambda a, b: (torch.tanh(self.mix(b) + u), 0.5 * torch.tanh(self.back(a)))

    def forward(self, x):
        u = self.encode(x.flatten(1))
        return self.head(self.deq(self.f(u), self.start(u))[0][-1][0])


def wrapped(net: Net, **changes: Any):
    classify = (lambda net, z: net.head(z[0])) if isinstance(net, TwoStates) else None
    settings = {
        "inject": lambda net, x: net.encode(x.flatten(1)),
        "initial_state": lambda net, u: net.start(u),
        "func": lambda net, u: net.f(u),
        "classify": classify or (lambda net, z: net.head(z)),
        "num_classes": 3,
        "input_shape": (1, 4, 4),
        **changes,
    }
    return from_torchdeq(net, **settings)


@pytest.mark.parametrize("solver", ["anderson", "broyden", "fixed_point_iter"])
@pytest.mark.parametrize("kind", [Net, TwoStates])
def test_the_fixed_points_are_those_of_torchdeq(solver: str, kind: type[Net]) -> None:
    net = kind(f_solver=solver, f_max_iter=60).eval()
    model, x = wrapped(net).eval(), torch.rand(9, 1, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(model(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "anderson:40:1e-07"),
        ({"f_solver": "broyden", "f_tol": 1e-3}, "broyden:40:0.001"),
        ({"f_solver": "fixed_point_iter", "f_stop_mode": "abs"}, "picard:40"),
        ({"f_solver": "simple_fixed_point_iter", "eval_f_max_iter": 55}, "picard:55:1e-07"),
    ],
)
def test_solver_steps_and_tolerance_are_read_off(settings: dict[str, Any], expected: str) -> None:
    assert str(wrapped(Net(**settings)).solver) == expected
    assert str(wrapped(Net(**settings), solver="anderson:5").solver) == "anderson:5"


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    net = Net(f_tol=1e-2).eval()
    model = wrapped(net).eval()
    row, others = torch.rand(1, 1, 4, 4), 50 * torch.rand(15, 1, 4, 4)
    with torch.no_grad():
        assert torch.equal(model(row), model(torch.cat([row, others]))[:1])


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_normalised_weights_follow_training_and_fold(norm: str) -> None:
    net = Net(norm=norm)
    model, x = wrapped(net), torch.rand(6, 1, 4, 4)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0, 1, 2]))
        optimiser.zero_grad()
        loss.backward()
        assert net.mix.weight_g.grad is not None
        optimiser.step()
    model.eval()
    with torch.no_grad():
        expected = net(x)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
        folded = inference_copy(model, dtype=torch.float64)
        torch.testing.assert_close(folded(x.double()).float(), expected, rtol=1e-4, atol=1e-5)
    assert "module.mix.weight" in dict(folded.named_parameters())
    assert "module.net.mix.weight_g" in dict(model.named_parameters())


def test_it_is_copied_amid_training() -> None:
    net = Net(norm="weight_norm")
    model, x = wrapped(net), torch.rand(2, 1, 4, 4)
    model(x).sum().backward()  # the normalised weight now has a graph behind it
    copied = copy.deepcopy(model)
    with torch.no_grad():
        net.head.bias.add_(1.0)
        torch.testing.assert_close(model(x), copied(x) + 1.0, rtol=1e-4, atol=1e-5)


def test_gradients_agree_with_implicit_ones_of_torchdeq() -> None:
    net = Net(f_max_iter=60, ift=True, b_max_iter=60, b_tol=1e-7)
    model, x = wrapped(net), torch.rand(4, 1, 4, 4)
    grads = []
    for each in (net, model):
        net.zero_grad()
        each(x).square().sum().backward()
        grads.append({name: p.grad for name, p in net.named_parameters() if "back" not in name})
    theirs, ours = grads
    for name, grad in theirs.items():
        torch.testing.assert_close(ours[name], grad, rtol=1e-3, atol=1e-4)


def test_it_is_certified() -> None:
    certificate = Certifier(wrapped(Net().eval()), sigma=0.5, n=200, n0=20).certify(
        torch.rand(1, 4, 4), seed=0
    )
    assert certificate.reference.solver == "anderson:40:1e-07"
    assert certificate.guarantee in ("standard", "audited")


def test_dropout_inside_the_cell_is_refused_in_training() -> None:
    model, x = wrapped(Net(dropout=0.2)), torch.rand(2, 1, 4, 4)
    assert model.eval()(x).shape == (2, 3)
    with pytest.raises(ConfigurationError, match="drop draws a dropout mask inside the cell"):
        model.train()(x)


def test_which_deq_and_which_solver_must_be_clear() -> None:
    net = Net()
    net.other = torchdeq.get_deq(f_solver="broyden", f_max_iter=7)
    with pytest.raises(ConfigurationError, match="holds 2 DEQs of torchdeq"):
        wrapped(net)
    assert str(wrapped(net, deq=net.other).solver) == "broyden:7"
    net.deq.f_solver = lambda *a, **k: None
    with pytest.raises(ConfigurationError, match="has no counterpart here; give solver="):
        wrapped(net, deq=net.deq)


def test_a_function_with_a_module_of_its_own_is_refused() -> None:
    net = Net()
    with pytest.raises(ConfigurationError, match="func must reach its weights"):
        wrapped(net, func=lambda module, u: net.f(u))


def test_without_torchdeq_it_is_one_line() -> None:
    code = (
        "import sys; sys.modules['torchdeq'] = None\n"
        "from deqcert.errors import DeqcertError\n"
        "from deqcert.models import from_torchdeq\n"
        "try:\n"
        "    from_torchdeq(None, inject=len, initial_state=len, func=len, classify=len,\n"
        "                  num_classes=2, input_shape=(1, 1, 1))\n"
        "except DeqcertError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout == 'from_torchdeq needs torchdeq: pip install "deqcert[torchdeq]"\n'
