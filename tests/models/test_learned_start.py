"""A learned start: zero at first, trained by early iterates, without a say in the fixed point."""

from __future__ import annotations

import pytest
import torch

from deqcert.data import load_data
from deqcert.models import MDEQ, build, inference_copy, iterates, load_model, save_model, solve_rows
from deqcert.solvers import SolverSpec

SETTINGS = {"channels": (8, 8), "expansion": 1, "groups": 1}


def model(*, learned_start: bool) -> MDEQ:
    torch.manual_seed(0)
    made = build("mdeq-digits", **SETTINGS, learned_start=learned_start)
    assert isinstance(made, MDEQ)
    return made.eval()


def moved() -> MDEQ:
    """A model whose start has left zero."""
    made = model(learned_start=True)
    assert made.start is not None
    with torch.no_grad():
        for part in made.start.parameters():
            part.normal_(0.0, 0.3)
    return made


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 1, 8, 8)


def test_it_begins_near_zero(images):
    made = model(learned_start=True)
    with torch.no_grad():
        state = made.initial_state(made.inject(images))
    assert all(0.0 < float(part.abs().max()) < 0.2 for part in state)


def test_the_plain_model_has_no_further_tensors():
    names = set(model(learned_start=True).state_dict()) - set(
        model(learned_start=False).state_dict()
    )
    assert names == {f"start.convs.{i}.{part}" for i in range(2) for part in ("weight", "bias")}


def test_it_depends_on_the_image_and_has_the_shapes_of_the_state(images):
    made = moved()
    with torch.no_grad():
        state = made.initial_state(made.inject(images))
    assert [tuple(part.shape[1:]) for part in state] == made.config.state_shapes
    assert all(float((part[0] - part[1]).abs().max()) > 0.0 for part in state)


def test_it_moves_early_iterates_and_not_the_fixed_point():
    """Of weights whose solves settle, the shipped ones."""
    plain = load_model("mdeq-digits-s050")
    torch.manual_seed(0)
    learnt = build("mdeq-digits", learned_start=True).eval()
    with torch.no_grad():
        for part in learnt.start.parameters():  # pyright: ignore
            part.normal_(0.0, 0.3)
    learnt.load_state_dict(learnt.state_dict() | plain.state_dict())
    images = load_data("digits").batch(range(5))[0]
    gaps = []
    for spec in ("picard:1", "anderson:60:1e-6"):
        a, b = (solve_rows(m, images, spec)[0] for m in (plain, learnt))
        gaps.append(float((a - b).abs().max()))
    assert gaps[0] > 1e-2
    assert gaps[1] < 1e-3


def test_early_losses_train_it(images):
    made = model(learned_start=True)
    state = iterates(made, made.inject(images), 2)[-1]
    made.classify(state).square().sum().backward()
    assert made.start is not None
    assert all(float(p.grad.abs().max()) > 0.0 for p in made.start.parameters())


def test_it_is_saved_and_folded_with_the_rest(tmp_path, images):
    made = moved()
    save_model(made, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    spec = SolverSpec("picard", 2)
    expected = solve_rows(made, images, spec)[0]
    assert torch.equal(solve_rows(loaded, images, spec)[0], expected)
    folded = solve_rows(inference_copy(loaded), images, spec)[0]
    torch.testing.assert_close(folded, expected, atol=1e-5, rtol=1e-5)
