"""Measured shares against what is known in closed form."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor

from deqcert.errors import ConfigurationError
from deqcert.solvers import State
from deqcert.training import evaluate
from tests.training.small import ScalarModel, two_levels


class Threshold(ScalarModel):
    """z* = 2 (x - 1/2); z_k approaches it as 1 - 2^-k, so every label is right after one step."""

    def inject(self, x: Tensor) -> Tensor:
        return super().inject(x - 0.5)


class Stuck(Threshold):
    """A start other than zero outlives the image: warm labels are those of the first copy."""

    def cell(self, state: State, injection: Tensor) -> State:
        assert isinstance(state, Tensor)
        return torch.where(state == 0.0, injection, state)


def normal_cdf(x: float) -> float:
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))


def test_accuracy_is_that_of_the_threshold():
    found = evaluate(Threshold(), two_levels(400), sigma=0.5, copies=40)
    best = normal_cdf(1.0)
    allowance = 4 * math.sqrt(best * (1 - best) / 16_000)
    assert found.accuracy == pytest.approx(best, abs=allowance)
    assert set(found.accuracy_by_steps.values()) == {found.accuracy}
    assert set(found.agreement_by_steps.values()) == {1.0}
    assert found.smoothed_accuracy == 1.0  # 40 votes at 0.84: wrong with probability 4e-7
    assert found.reference == "picard:30"


def test_noise_is_the_seeds_and_none_at_sigma_0():
    data = two_levels(40)
    one, again, other = (evaluate(Threshold(), data, sigma=1.0, seed=s) for s in (1, 1, 2))
    assert one == again
    assert one != other
    assert evaluate(Threshold(), data, sigma=0.0, copies=1).accuracy == 1.0


def test_residuals_and_convergence_follow_the_slope():
    """The k-th step leaves residual |z_k - z_(k-1)| / |z_k| = 2^-k / (2 (1 - 2^-k))."""
    steps = (1, 2, 5)
    found = evaluate(
        Threshold(), two_levels(), sigma=0.1, steps=steps, convergence="picard:30:1e-3"
    )
    for k in steps:
        expected = 0.5 ** (k - 1) / (2 * (1 - 0.5**k))
        assert found.residual_by_steps[k] == pytest.approx(expected, rel=1e-3)
    assert found.converged == 1.0
    assert found.steps_to_converge == {"median": 10.0, "p99": 10.0, "max": 10.0}
    slow = evaluate(Threshold(), two_levels(), sigma=0.1, steps=steps, convergence="picard:9:1e-3")
    assert slow.converged == 0.0


def test_serialized_disagreement_is_seen():
    """Warm labels of the first copy, cold labels of the second: they differ in 2 p (1 - p)."""
    p = normal_cdf(1.0)
    found = evaluate(
        Stuck(), two_levels(2000), sigma=0.5, copies=3, serial_steps=(1, 2), reference="picard:1"
    )
    share = 2 * p * (1 - p)
    for value in found.disagreement_serial.values():
        assert value == pytest.approx(share, abs=4 * math.sqrt(share / 4000))
    cold = evaluate(Threshold(), two_levels(), sigma=0.5, copies=3, reference="picard:1")
    assert cold.disagreement_serial[1] < 0.35


def test_chosen_images_alone_are_evaluated():
    found = evaluate(Threshold(), two_levels(40), sigma=0.0, indices=[0, 2, 4], copies=2)
    assert (found.images, found.copies, found.accuracy) == (3, 2, 1.0)


def test_settled_steps_need_accuracy_and_labels():
    found = evaluate(Threshold(), two_levels(8), sigma=0.5, steps=(1, 2, 3, 4))

    def settled(accuracy: list[float], agreement: list[float]) -> int:
        return dataclasses.replace(
            found,
            accuracy_by_steps=dict(enumerate(accuracy, start=1)),
            agreement_by_steps=dict(enumerate(agreement, start=1)),
        ).settled_steps

    assert settled([0.8, 0.8, 0.8, 0.8], [1.0] * 4) == 1
    assert settled([0.7, 0.798, 0.8, 0.8], [1.0] * 4) == 2
    assert settled([0.8, 0.8, 0.8, 0.8], [0.9, 0.99, 0.998, 1.0]) == 3
    assert settled([0.9, 0.7, 0.7, 0.8], [1.0] * 4) == 1
    assert settled([0.7, 0.7, 0.7, 0.8], [1.0] * 4) == 4


def test_result_fits_json():
    found = evaluate(Threshold(), two_levels(8), sigma=0.5, copies=1)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["disagreement_serial"] == {}


@pytest.mark.parametrize(
    "change", [{"indices": []}, {"copies": 0}, {"steps": ()}, {"steps": (3, 2)}, {"steps": (0, 1)}]
)
def test_nothing_to_evaluate_is_refused(change):
    with pytest.raises(ConfigurationError):
        evaluate(Threshold(), two_levels(8), sigma=0.5, **change)
