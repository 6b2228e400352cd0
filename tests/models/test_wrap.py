"""Models written elsewhere."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from deqcert.errors import ConfigurationError
from deqcert.models import from_classifier, from_functions, inference_copy
from deqcert.solvers import SolverSpec

encoder = nn.Linear(4, 4)  # a global of the name that an attribute below carries


class _Elsewhere(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.read = nn.Linear(4, 3)

    def encode(self, x):
        return self.encoder(x.flatten(1))


def _wrapped(module=None, **changes):
    functions = {
        "inject": lambda net, x: net.encoder(x.flatten(1)),
        "initial_state": lambda net, u: torch.zeros_like(u),
        "cell": lambda net, z, u: 0.5 * z + u,
        "classify": lambda net, z: net.read(z),
        **changes,
    }
    return from_functions(module or _Elsewhere(), num_classes=3, input_shape=(1, 2, 2), **functions)


def test_from_functions_solves_with_the_module_it_was_given():
    net = _Elsewhere()
    model, x = _wrapped(net, solver="picard:80").eval(), torch.rand(5, 1, 2, 2)
    fixed = 2 * net.encoder(x.flatten(1))
    torch.testing.assert_close(model(x), net.read(fixed))
    assert dict(model.named_parameters()).keys() == {
        f"module.{name}" for name, _ in net.named_parameters()
    }


def test_from_functions_copies_are_cut_loose_from_the_original():
    net, x = _Elsewhere(), torch.rand(5, 1, 2, 2)
    model = _wrapped(net).eval()
    copied = inference_copy(model, dtype=torch.float64)
    assert copied(x.double()).dtype == torch.float64
    before = copied(x.double())
    with torch.no_grad():
        net.read.bias.add_(1.0)
    assert torch.equal(copied(x.double()), before)
    assert net.read.weight.requires_grad
    assert net.read.weight.dtype == torch.float32


def test_functions_that_hold_on_to_a_module_are_refused():
    net = _Elsewhere()
    kept = {
        "_Elsewhere": net.encode,
        "Linear": net.encoder,
        "net": lambda _, x: net.encode(x),
        "encoder": lambda _, x: encoder(x.flatten(1)),
    }
    for name, inject in kept.items():
        with pytest.raises(ConfigurationError, match=f"inject must reach .* holds on .*{name}"):
            _wrapped(net, inject=inject)
    bound = functools.partial(lambda net, _, x: net.encode(x), net)
    with pytest.raises(ConfigurationError, match="holds on to the module '_Elsewhere'"):
        _wrapped(net, inject=bound)


def test_from_classifier_gives_the_classifiers_own_logits_and_gradients():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    model = from_classifier(net, num_classes=3, input_shape=(1, 2, 2))
    x = torch.rand(5, 1, 2, 2)
    assert model.solver == SolverSpec.parse("picard:1")
    model.train()(x).square().sum().backward()
    ours = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    net(x).square().sum().backward()
    for a, p in zip(ours, net.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad)
    torch.testing.assert_close(model.eval()(x), net(x))


def test_from_classifier_checks_the_logits():
    model = from_classifier(nn.Flatten(), num_classes=3, input_shape=(1, 2, 2)).eval()
    with pytest.raises(
        ConfigurationError, match=r"must return \(batch, 3\) logits, but got \(16, 4"
    ):
        model(torch.rand(2, 1, 2, 2))
