"""Serialized chains do what they say: warm-up, starts, restarts; statistics of solves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deqcert.smoothing.chains import Serialization
from deqcert.smoothing.classifier import ReferenceClassifier
from deqcert.smoothing.noise import NoiseSource
from deqcert.smoothing.sampling import Sampler
from deqcert.smoothing.spent import Spent
from deqcert.smoothing.starts import make_start
from deqcert.solvers import SolverSpec, Status, solve
from tests.problems import SHAPE, LateBurstDEQ, LinearDEQ, StickyDEQ, TwoClassDEQ, image_at

SIGMA = 0.25


def sampler(model: TwoClassDEQ, batch_size: int = 400) -> Sampler:
    classifier = ReferenceClassifier(model, model.solver, sigma=SIGMA)
    noise = NoiseSource(seed=0, index=0, shape=SHAPE, sigma=SIGMA)
    return Sampler(classifier, image_at(0.1), noise, batch_size=batch_size)


def how(start: str = "previous", chains: int = 16, serial: str = "picard:2") -> Serialization:
    return Serialization(
        serial=SolverSpec.parse(serial),
        warmup=SolverSpec.parse("picard:5"),
        start=start,
        chains=chains,
    )


@pytest.mark.parametrize("start", ["previous", "clean"])
def test_serialized_labels_are_those_of_a_plain_loop(start: str):
    """The same chains written out with the solver alone, one batch after the other."""
    model = StickyDEQ()
    subject = sampler(model)
    found = subject.serialized("estimation", 70, how(start), Spent())
    images = subject.noisy("estimation", range(70))
    state = None
    if start == "clean":
        injection = model.inject(image_at(0.1)[None])
        clean = solve(model.cell, model.initial_state(injection), injection, spec="picard:5").state
    expected = []
    for first in range(0, 70, 16):
        injection = model.inject(images[first : first + 16])
        rows = len(injection)
        if start == "clean":
            begin = clean.expand(rows, 1)
        elif state is None:
            begin = model.initial_state(injection)
        else:
            begin = state[:rows]
        spec = "picard:5" if first == 0 else "picard:2"
        new = solve(model.cell, begin, injection, spec=spec).state
        expected.append(model.classify(new).argmax(1).numpy())
        state = new if state is None else torch.cat([new, state[rows:]])
    assert np.array_equal(found, np.concatenate(expected))


def test_cell_evaluations_are_warm_up_plus_serial_steps():
    spent = Spent()
    sampler(LinearDEQ()).serialized("estimation", 64, how(), spent)
    assert spent.cell_evaluations == 16 * 5 + 48 * 2
    assert spent.steps_quantiles()["1"] == 5
    assert spent.steps_quantiles()["0.5"] == 2


def test_a_failed_chain_starts_again():
    class FailsOnce(LinearDEQ):
        """NaN while the injection is far out; a chain that kept its NaN would fail for ever."""

        def cell(self, state: torch.Tensor, injection: torch.Tensor) -> torch.Tensor:
            return torch.where(injection > 0.45, torch.nan, 0.5 * state + injection)

    subject = sampler(FailsOnce())
    labels = subject.serialized("estimation", 1600, how(), Spent())
    injection = FailsOnce().inject(subject.noisy("estimation", range(1600)))[:, 0]
    assert np.array_equal(labels == -1, (injection > 0.45).detach().numpy())
    assert 50 < int((labels == -1).sum()) < 400


def _images_last(rows: int) -> tuple[torch.Tensor, ...]:
    """States as a fast cell gives them: channels innermost in memory."""
    parts = (torch.rand(rows, 3, 4, 5), torch.rand(rows, 2, 2, 2))
    return tuple(part.contiguous(memory_format=torch.channels_last) for part in parts)


def test_states_are_kept_without_a_copy_and_in_their_memory_order():
    solved = torch.full((8,), int(Status.CONVERGED), dtype=torch.uint8)
    whole, halves = make_start("previous", 8), make_start("previous", 8)
    state = _images_last(8)
    whole.keep(state, solved, 0, 8)
    for low in (0, 4):
        halves.keep(tuple(part[low : low + 4] for part in state), solved[:4], low, low + 4)
    whole.end_batch()
    halves.end_batch()
    for given, kept, joined in zip(state, whole.state0(0, 8), halves.state0(0, 8), strict=True):
        assert kept.data_ptr() == given.data_ptr()
        assert torch.equal(joined, given)
        assert joined.is_contiguous(memory_format=torch.channels_last)
    failed = solved.clone()
    failed[2] = int(Status.NONFINITE)
    before = [part.clone() for part in state]
    whole.keep(tuple(part + 1 for part in state), failed, 0, 8)
    for old, kept in zip(before, whole.state0(0, 8), strict=True):
        assert torch.equal(kept[3:], old[3:] + 1)
        assert not kept[2].any()


def test_a_clean_start_is_repeated_in_its_memory_order():
    start = make_start("clean", 8)
    state = _images_last(1)
    start.clean(state)
    for given, row in zip(state, start.state0(2, 7), strict=True):
        assert torch.equal(row, given.expand(5, *given.shape[1:]))
        assert row.is_contiguous(memory_format=torch.channels_last)


def test_cold_labels_depend_on_the_draw_alone():
    model = LateBurstDEQ(bursts_after=4)
    whole = sampler(model).cold("estimation", range(100), Spent())
    some = np.array([3, 50, 51, 99])
    part = sampler(model, batch_size=3).cold("estimation", some, Spent())
    assert np.array_equal(part.label, whole.label[some])
    assert np.array_equal(part.lead, whole.lead[some])


def test_counts_agree_with_labels():
    subject = sampler(LinearDEQ(), batch_size=64)
    counts = subject.cold_counts("estimation", 500, Spent())
    labels = subject.cold("estimation", range(500), Spent()).label
    assert counts.tolist() == [int((labels == c).sum()) for c in (0, 1)]


def test_noisy_images_are_never_clipped():
    noisy = sampler(LinearDEQ()).noisy("estimation", range(500))
    assert float(noisy.min()) < -0.1
    assert float(noisy.max()) > 0.9


def test_residual_quantiles_bound_the_residuals_from_above():
    spec = SolverSpec.parse("picard:4:0.2")
    injection = torch.linspace(-1, 1, 200)[:, None]
    model = LinearDEQ()
    solution = solve(model.cell, torch.zeros(200, 1), injection, spec=spec)
    spent = Spent()
    spent.add(solution, spec)
    residual = np.sort(solution.residual.numpy())
    for name, value in spent.residual_quantiles().items():
        exact = residual[max(int(np.ceil(float(name) * 200)) - 1, 0)]
        assert value is not None
        assert exact <= value * 1.005  # written with three digits
        assert value <= max(exact * 1.13, 1e-12)
    assert spent.unconverged == int((solution.status != 1).sum())
