"""The numeric margin: what moves logits is seen, and little is computed to see it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from deqcert.errors import NumericalWarning
from deqcert.models import inference_copy, load_model, solve_rows
from deqcert.models.fast_part import plain_parts
from deqcert.smoothing.hardware import HardwareBatch
from deqcert.smoothing.margin import NO_LEAD, PROBES, measured_margin, probe_images
from deqcert.solvers import SolverSpec
from tests.problems import SHAPE, LinearDEQ

MOVED = 2.0**-10


class ShapeDEQ(LinearDEQ):
    """Rounds apart in batches of some size: in its cell, its start or its logits."""

    def __init__(self, where: str, size: int) -> None:
        super().__init__()
        self.where = where
        self.size = size
        self.rows = 0

    def _moved(self, where: str, x: Tensor) -> Tensor:
        return x + MOVED * (where == self.where and len(x) == self.size)

    def initial_state(self, injection: Tensor) -> Tensor:
        if self.where != "start":
            return super().initial_state(injection)
        return self._moved("start", 0.5 * injection)

    def cell(self, state: Tensor, injection: Tensor) -> Tensor:
        self.rows += len(state)
        return self._moved("cell", super().cell(state, injection))

    def classify(self, state: Tensor) -> Tensor:
        return super().classify(self._moved("head", state))


def measured(model, solver: str, sigma: float = 0.5) -> float:
    probes = probe_images(model.input_shape, sigma)
    return measured_margin(model.eval(), SolverSpec.parse(solver), probes, HardwareBatch(400))


@pytest.mark.parametrize("solver", ["picard:3", "anderson:5", "picard:20:1e-3"])
@pytest.mark.parametrize(("where", "size"), [("cell", 16), ("cell", 400), ("head", 32)])
def test_a_shape_that_rounds_apart_is_noticed(where, size, solver):
    lead = 4 * 2 * MOVED  # both logits move, and a safety factor of 4 comes on top
    assert measured(ShapeDEQ(where, size), solver) >= lead > measured(ShapeDEQ("no", 0), solver)


def test_a_start_that_rounds_apart_is_noticed():
    # Half of it is left after each step.
    assert measured(ShapeDEQ("start", 16), "picard:3") >= 4 * 2 * MOVED / 8
    assert measured(ShapeDEQ("start", 1), "picard:3") < MOVED / 8


def test_a_shape_that_rounds_apart_is_solved_in_full():
    apart, usual = ShapeDEQ("cell", 400), ShapeDEQ("no", 0)
    assert measured(apart, "picard:30") > measured(usual, "picard:30")
    assert usual.rows < 64 * 30 + 700
    assert apart.rows == usual.rows + 400 * 30


class FragileDEQ(ShapeDEQ):
    """Moves logits in batches of 16, and in those of some size loses where the state is large."""

    def __init__(self, value: float, *, size: int = 16, above: float = 1.0) -> None:
        super().__init__("head", 16)
        self.value, self.fails, self.above = value, size, above

    def classify(self, state: Tensor) -> Tensor:
        logits = super().classify(state)
        lost = (state.abs() > self.above) & (len(state) == self.fails)
        return torch.where(lost, logits.new_full((), self.value), logits)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_probes_that_fail_in_some_batches_alone_are_no_small_margin(value):
    with pytest.warns(NumericalWarning, match="depends on the batch"):
        assert measured(FragileDEQ(value), "picard:3") == NO_LEAD


def test_without_a_finite_probe_there_is_no_small_margin():
    with pytest.warns(NumericalWarning, match="no probe has finite logits"):
        assert measured(FragileDEQ(math.nan, size=64, above=-1.0), "picard:3") == NO_LEAD


def test_without_differences_the_rounding_of_the_logits_is_left():
    model = LinearDEQ().eval()
    probes = probe_images(SHAPE, 0.5)
    logits = solve_rows(model, probes, "picard:3")[0]
    rounding = torch.finfo(torch.float32).eps * float(logits.abs().max())
    assert rounding <= measured(model, "picard:3") == 2.0 ** math.ceil(math.log2(rounding))


@pytest.mark.parametrize("solver", ["picard:3", "anderson:30"])
def test_a_fifth_of_the_evaluations_of_every_probe_in_every_shape(solver):
    pytest.importorskip("numba")
    model = inference_copy(load_model("mdeq-digits-s050"))
    rows = []
    cell = model.cell

    def counted(state, injection):
        rows.append(len(state[0]))
        return cell(state, injection)

    object.__setattr__(model, "cell", counted)
    measured(model, solver)
    # Alone, by 7, by 32, by 64 and among 400 rows, padded to 16; and plainly.
    whole = 16 * PROBES + 16 * math.ceil(PROBES / 7) + 64 + 64 + 400 + 64
    assert sum(rows) * 5 <= whole * SolverSpec.parse(solver).max_steps


def test_the_plain_parts_are_compared_in_float32_alone():
    pytest.importorskip("numba")
    model = inference_copy(load_model("mdeq-digits-s050"))
    found = measured(model, "picard:3")
    probes = probe_images(model.input_shape, 0.5)
    fast = solve_rows(model, probes, "picard:3")[0]
    with plain_parts(model):
        plain = solve_rows(model, probes, "picard:3")[0]
        alone = measured(model, "picard:3")
    order = fast.topk(2).indices
    moved = (fast.gather(1, order) - plain.gather(1, order)).diff(dim=1).abs().max()
    assert found >= 4 * float(moved) > 0
    assert alone > 0


class MixingDEQ(LinearDEQ):
    """Its logits depend on the other rows of the batch."""

    def classify(self, state: Tensor) -> Tensor:
        logits = super().classify(state)
        return logits - 10.0 * logits.mean(dim=0)


def test_a_model_that_mixes_rows_is_told_that_little_will_be_clear():
    with pytest.warns(NumericalWarning, match="few draws will count as clear.*does the model mix"):
        assert measured(MixingDEQ(), "picard:3") > 0.1
