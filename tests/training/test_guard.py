"""The guard against fixed points that slip away: what it measures, and when it stops a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from deqcert.errors import TrainingError
from deqcert.solvers import State
from deqcert.training import TrainConfig, train
from deqcert.training.guard import fixed_point_residual
from deqcert.training.run import TrainingRun
from tests.training.small import ScalarModel, two_levels

CONFIG = TrainConfig(
    sigma=0.3, epochs=2, batch_size=8, validation_share=0.2, validation_copies=1, card_copies=1
)


class Bent(ScalarModel):
    """f(z) = z^2 + 1 + |x| has no real fixed point: solves wander and never settle."""

    def cell(self, state: State, injection: Any) -> State:
        assert isinstance(state, Tensor)
        return state.square() + 1.0 + injection.abs()


class Exploding(ScalarModel):
    """Leaves the finite numbers outside training, where losses do not see it."""

    def cell(self, state: State, injection: Any) -> State:
        out = super().cell(state, injection)
        assert isinstance(out, Tensor)
        return out if self.training else (50.0 + out.abs()).exp()


def test_a_linear_cell_is_solved():
    run = TrainingRun(ScalarModel(slope=0.5), two_levels(), CONFIG)
    assert fixed_point_residual(run, epoch=0) < 1e-5


def test_a_cell_without_fixed_point_is_seen():
    run = TrainingRun(Bent(), two_levels(), CONFIG)
    assert fixed_point_residual(run, epoch=0) > 0.1


def test_a_run_stops_when_its_fixed_points_are_lost(tmp_path):
    with pytest.raises(TrainingError, match=r"fixed points have diverged in epoch 1: \d+ of 32"):
        train(Exploding(), two_levels(), out=tmp_path, config=CONFIG)
    assert not (tmp_path / "model.safetensors").exists()


def test_the_log_carries_the_residual(tmp_path):
    result = train(ScalarModel(), two_levels(), out=tmp_path, config=CONFIG)
    assert [line["residual"] < 1e-4 for line in result.log] == [True, True]


def test_training_goes_on_unchanged_by_the_look():
    runs = [TrainingRun(ScalarModel(), two_levels(), CONFIG) for _ in range(2)]
    for epoch in range(2):
        for run in runs:
            run.epoch(epoch, {}, lambda loss: None)
        fixed_point_residual(runs[0], epoch=epoch)
    ours, theirs = (dict(run.model.state_dict()) for run in runs)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
