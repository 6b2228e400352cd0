"""Monotone DEQs: monotone as they run, one equilibrium, proofs of labels from any state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deqcert.errors import ConfigurationError, UnknownNameError
from deqcert.models import (
    MonDEQ,
    MonDEQConfig,
    ProvesLabels,
    build,
    inference_copy,
    load_model,
    save_model,
    solve_rows,
    weights_digest,
)
from tests.models.made import tiny_mdeq, tiny_mondeq

SHAPES = {
    "dense": {},
    "reflections": {"splitting": "peaceman-rachford"},
    "absolute": {"constraint": "absolute", "m": 0.5},
    "conv": {"kind": "conv", "width": 3},
    "conv-absolute": {"kind": "conv", "width": 3, "constraint": "absolute", "m": 0.3},
}


def rough(name: str, factor: float = 4.0) -> MonDEQ:
    """A model whose operator is far from m I."""
    model = tiny_mondeq(**SHAPES[name])
    with torch.no_grad():
        for parameter in model.operator.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1).mul_(factor)
    return model.eval()


@torch.no_grad()
def matrix(model: MonDEQ) -> np.ndarray:
    """F of the map that runs, column by column, borders included."""
    shape = model.config.state_shape
    count = int(np.prod(shape))
    basis = torch.eye(count, dtype=torch.float64).reshape(count, *shape)
    return model.double().operator(basis).flatten(1).T.numpy()


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_operator_that_runs_is_as_monotone_and_as_bounded_as_it_says(name):
    model = rough(name)
    exact = model.operator.exact()
    f = matrix(model)
    assert np.linalg.eigvalsh(0.5 * (f + f.T))[0] >= exact.m - 1e-9
    assert np.linalg.norm(f, 2) <= exact.lipschitz
    symmetric, skew = exact.parts
    assert np.linalg.norm(0.5 * (f + f.T), 2) <= symmetric
    assert np.linalg.norm(0.5 * (f - f.T), 2) <= skew
    for step in (exact.step(), exact.exact_step()):
        assert np.linalg.norm(np.eye(len(f)) - step.size * f, 2) <= step.rate < 1
    if "absolute" in name:
        w = np.abs(np.eye(len(f)) - f)
        assert np.linalg.eigvalsh(0.5 * (w + w.T))[-1] <= 1 - exact.m + 1e-9
        if name == "absolute":  # the bound is met where no border and no clamp intervenes
            assert np.linalg.eigvalsh(0.5 * (w + w.T))[-1] > 0.9 * (1 - exact.m)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_exact_form_computes_what_the_model_computes(name):
    model = rough(name).double()
    z = torch.randn(4, *model.config.state_shape, dtype=torch.float64)
    x = torch.rand(4, *model.input_shape, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model.operator.exact().apply(z), model.operator(z))
        torch.testing.assert_close(model.source.exact()(x)[0], model.source(x)[0])
        torch.testing.assert_close(model.head.exact().logits(z)[0], model.head(z))


def test_the_bias_is_lipschitz_in_pixels():
    """1 / std of standardising belongs to the norm of U."""
    source = rough("dense").double().source
    weight = source.layer.weight.detach().reshape(12, 2, -1) / torch.tensor([0.25, 0.5])[:, None]
    exact = float(torch.linalg.matrix_norm(weight.flatten(1), ord=2))
    assert exact <= source.exact().norm <= 2 * exact


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_fixed_point_is_the_equilibrium(name):
    model = inference_copy(rough(name).double())
    assert isinstance(model, MonDEQ)
    x = torch.rand(16, *model.input_shape, dtype=torch.float64)
    _, solution = solve_rows(model, x, "picard:20000:1e-13")
    state, bias = solution.state, model.inject(x)[0]
    assert isinstance(state, torch.Tensor)
    z = torch.relu(state)
    torch.testing.assert_close(torch.relu(z - model.operator(z) + bias), z, atol=1e-9, rtol=1e-9)
    assert float((z == 0).double().mean()) > 0.05  # the projection matters here


def test_both_splittings_have_the_same_labels():
    one, two = (rough(name) for name in ("dense", "reflections"))
    two.load_state_dict(one.state_dict())
    x = torch.rand(64, *one.input_shape)
    first, second = (solve_rows(m, x, "picard:500:1e-6")[0] for m in (one, two))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_proofs_go_on_from_where_they_looked(name):
    """Every look is a step: repeated, it proves what a long solve finds."""
    model = inference_copy(rough(name))
    assert isinstance(model, ProvesLabels)
    assert isinstance(model, MonDEQ)
    x = torch.rand(48, *model.input_shape)
    logits, _ = solve_rows(model, x, "picard:500:1e-6")
    injection = model.inject(x)
    state = model.initial_state(injection)
    proved = []
    for _ in range(400):
        proof = model.prove(state, injection)
        named = proof.label >= 0
        assert torch.equal(proof.label[named], logits.argmax(1)[named])
        proved.append(float(named.float().mean()))
        assert isinstance(proof.state, torch.Tensor)
        state = proof.state
        if proved[-1] == 1.0 and float(proof.distance.max()) < 1e-3:
            break
    assert proved[0] < 0.8
    assert proved[-1] >= 0.95
    assert torch.equal(model.proved_labels(state, injection), model.prove(state, injection).label)
    assert (proof.distance < 1e-3).all()


def test_proofs_are_about_the_stored_weights_whatever_runs():
    """A bfloat16 copy computes another function, but proves labels of the same exact one."""
    model = rough("dense")
    x = torch.rand(32, *model.input_shape)
    logits, _ = solve_rows(model, x.bfloat16().float(), "picard:500:1e-6")
    low = inference_copy(model, dtype=torch.bfloat16)
    assert isinstance(low, MonDEQ)
    _, solution = solve_rows(low, x.bfloat16(), "picard:100")
    proof = low.prove(solution.state, low.inject(x.bfloat16()))
    named = proof.label >= 0
    assert bool(named.any())
    assert torch.equal(proof.label[named], logits.argmax(1)[named])
    full = inference_copy(model)
    assert isinstance(full, MonDEQ)
    assert low.proof_facts() == full.proof_facts()


@pytest.mark.parametrize("name", ["dense", "absolute"])
def test_a_float64_copy_of_float32_weights_loses_nothing(name):
    model = inference_copy(rough(name), dtype=torch.float64)
    assert isinstance(model, MonDEQ)
    x = torch.rand(8, *model.input_shape, dtype=torch.float64)
    _, solution = solve_rows(model, x, "picard:5000:1e-14")
    assert isinstance(solution.state, torch.Tensor)
    assert float(model.prove(solution.state, model.inject(x)).distance.max()) < 1e-10


def test_nothing_is_proved_of_nan():
    model = inference_copy(rough("dense"))
    assert isinstance(model, MonDEQ)
    x = torch.rand(4, *model.input_shape)
    injection = model.inject(x)
    state = torch.full((4, 12), 0.1)
    state[1], state[2] = torch.nan, torch.inf
    injection[0][3] = torch.nan
    assert (model.proved_labels(state, injection)[1:] == -1).all()


def test_trainable_models_refuse_to_prove():
    model = rough("dense")
    x = torch.rand(4, *model.input_shape)
    with pytest.raises(ConfigurationError, match="inference copy"):
        model.prove(torch.zeros(4, 12), model.inject(x))
    with pytest.raises(ConfigurationError, match="inference copy"):
        model.proof_facts()
    assert not isinstance(tiny_mdeq(1), ProvesLabels)


def test_a_larger_m_is_a_smaller_lipschitz_constant():
    one, twenty = (tiny_mondeq(m=m) for m in (1.0, 20.0))
    twenty.load_state_dict(one.state_dict())
    x, y = torch.rand(2, 200, *one.input_shape).double()
    for model in (one.double(), twenty.double()):
        states = [solve_rows(model.eval(), image, "picard:2000:1e-12")[1].state for image in (x, y)]
        moved = (states[0] - states[1]).norm(dim=1) / (x - y).flatten(1).norm(dim=1)  # pyright: ignore
        bound = model.source.exact().norm / model.config.m
        assert 0.02 * bound < float(moved.max()) <= bound


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"m": 0.0}, "m must be"),
        ({"constraint": "absolute", "m": 1.0}, "below 1"),
        ({"kernel": 4}, "odd"),
        ({"kind": "conv", "pool": 2}, "divide"),
        ({"pool": 2}, "conv models"),
        ({"kind": "conv", "splitting": "peaceman-rachford"}, "dense"),
        ({"width": 0}, "width"),
        ({"std": (0.0,)}, "std"),
        ({"mean": (1.0, 1.0, 1.0)}, "per channel"),
    ],
)
def test_configurations_are_checked(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        tiny_mondeq(**changes)


def test_unknown_words_are_named():
    with pytest.raises(UnknownNameError, match="quadratic"):
        tiny_mondeq(constraint="quadratc")
    with pytest.raises(UnknownNameError, match="width"):
        MonDEQConfig.from_dict({"input_shape": (1, 2, 2), "num_classes": 2, "widht": 3})
    with pytest.raises(ConfigurationError, match="num_classes"):
        MonDEQConfig.from_dict({"input_shape": (1, 2, 2)})


@pytest.mark.parametrize("name", ["mondeq-fc", "mondeq-conv", "mondeq-ibp"])
def test_named_ones_are_built_and_rebuilt_from_a_checkpoint(name, tmp_path):
    model = build(name)
    assert isinstance(model, MonDEQ)
    assert model.input_shape == (1, 28, 28)
    again = load_model(save_model(model, tmp_path / "m.safetensors", card={"sigma": 0.0}))
    assert isinstance(again, MonDEQ)
    assert again.config == model.config
    assert weights_digest(again) == weights_digest(model)
