"""The start ``linear``: what is predicted, when a draw is solved on, and what a failure does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from deqcert.data import load_data
from deqcert.errors import NumericalWarning
from deqcert.models import load_model
from deqcert.smoothing.chains import Serialization
from deqcert.smoothing.classifier import ReferenceClassifier
from deqcert.smoothing.noise import NoiseSource
from deqcert.smoothing.predictor import LinearPredictor
from deqcert.smoothing.sampling import Sampler
from deqcert.smoothing.settling import FIT_ROWS, ROUNDS
from deqcert.smoothing.spent import Spent
from deqcert.solvers import SolverSpec
from tests.problems import SHAPE, LinearDEQ, StickyDEQ, TwoClassDEQ, image_at

SIGMA = 0.25


def how(serial: str = "picard:1", warmup: str = "picard:20") -> Serialization:
    return Serialization(
        serial=SolverSpec.parse(serial),
        warmup=SolverSpec.parse(warmup),
        start="linear",
        chains=16,
    )


def sampler(model: TwoClassDEQ, batch_size: int = 400) -> Sampler:
    classifier = ReferenceClassifier(model, SolverSpec.parse("picard:20"), sigma=SIGMA)
    noise = NoiseSource(seed=0, index=0, shape=SHAPE, sigma=SIGMA)
    return Sampler(classifier, image_at(0.1), noise, batch_size=batch_size)


def test_maps_that_are_a_convolution_of_the_injection_are_found():
    generator = torch.Generator().manual_seed(0)
    fine, coarse = torch.randn(2, 3, 3, 3, 3, generator=generator).unbind(0)
    offset = torch.randn(1, 3, 4, 4, generator=generator)

    def truth(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = F.avg_pool2d(u, 2)
        return F.conv2d(u, fine, padding=1), F.conv2d(pooled, coarse, padding=1) + offset

    seen, new = torch.randn(2, 24, 3, 8, 8, generator=generator).unbind(0)
    found = LinearPredictor((seen, None), truth(seen))((new, None))
    for part, expected in zip(found, truth(new), strict=True):
        assert part.shape == expected.shape
        assert float((part - expected).norm() / expected.norm()) < 0.01


def test_injections_without_pixels_are_dense_features():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 7, generator=generator)
    seen, new = torch.randn(2, 64, 5, generator=generator).unbind(0)
    found = LinearPredictor({"u": seen}, seen @ weight + 1)({"u": new})
    assert isinstance(found, torch.Tensor)
    assert float((found - (new @ weight + 1)).norm() / found.norm()) < 0.01


def test_too_many_features_leave_the_mean():
    seen = torch.randn(8, 3000, generator=torch.Generator().manual_seed(0))
    state = seen[:, :4]
    found = LinearPredictor(seen, state)(seen)
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, state.mean(0).expand(8, 4))


def test_a_linear_model_is_predicted_and_hardly_ever_solved():
    subject, fit, spent = sampler(LinearDEQ()), Spent(), Spent()
    subject.prepare(how(), fit)
    labels = subject.serialized("estimation", 2000, how(), spent)
    reference = subject.cold("estimation", range(2000), Spent()).label
    assert np.array_equal(labels, reference)
    assert fit.cell_evaluations == FIT_ROWS * (20 + ROUNDS - 1)
    assert spent.cell_evaluations < 0.05 * 2000  # only next to the decision line


def test_draws_without_a_clear_lead_get_all_rounds_and_no_more():
    subject, spent = sampler(StickyDEQ()), Spent()
    how_many = 500
    subject.prepare(how(), Spent())
    subject.serialized("estimation", how_many, how(), spent)
    steps = spent.steps_quantiles()
    assert steps["1"] == ROUNDS
    assert 0 < spent.cell_evaluations < ROUNDS * how_many


class FailsFarOut(LinearDEQ):
    """NaN while the injection is far out."""

    def cell(self, state: torch.Tensor, injection: torch.Tensor) -> torch.Tensor:
        return torch.where(injection > 0.45, torch.nan, 0.5 * state + injection)


class FailsAlways(LinearDEQ):
    """NaN everywhere."""

    def cell(self, state: torch.Tensor, injection: torch.Tensor) -> torch.Tensor:
        return torch.full_like(state, torch.nan)


def test_failed_fit_rows_do_not_poison_the_prediction():
    subject = sampler(FailsFarOut())
    labels = subject.serialized("estimation", 1000, how(), Spent())
    injection = FailsFarOut().inject(subject.noisy("estimation", range(1000)))[:, 0]
    assert int((injection > 0.45).sum()) > 10
    # Where the prediction alone is clear, the cell is not asked: the audit answers for that.
    clear = (injection < 0.45).detach().numpy()
    assert np.array_equal(labels[clear], (injection > 0).detach().numpy()[clear])


def test_without_a_usable_fit_row_every_draw_is_solved_from_the_models_own_start():
    spent = Spent()
    with pytest.warns(NumericalWarning, match="no probe has finite logits"):
        subject = sampler(FailsAlways())
    subject.prepare(how(), Spent())
    labels = subject.serialized("estimation", 100, how(), spent)
    assert (labels == -1).all()
    assert spent.cell_evaluations == 100 * ROUNDS


@pytest.fixture(scope="module")
def digits() -> Any:
    return load_data("digits", split="test")[343].image


def test_digits_need_less_than_one_step_a_draw(digits: torch.Tensor):
    model = load_model("mdeq-digits-s050")
    classifier = ReferenceClassifier(model, SolverSpec.parse("picard:6"), sigma=0.5)
    noise = NoiseSource(seed=0, index=343, shape=tuple(digits.shape), sigma=0.5)
    found = {}
    for batch_size in (400, 37):
        spent = Spent()
        subject = Sampler(classifier, digits, noise, batch_size=batch_size)
        subject.prepare(how(warmup="picard:6"), Spent())
        found[batch_size] = subject.serialized("estimation", 200, how(), spent)
        assert spent.cell_evaluations < 200
    assert np.array_equal(found[400], found[37])
    reference = subject.cold("estimation", range(200), Spent()).label
    assert (found[400] != reference).mean() < 0.02
