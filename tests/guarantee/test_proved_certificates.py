"""Whole certificates of proved labels: valid, no smaller than they must be, and cheap."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deqcert.errors import ConfigurationError
from deqcert.models import MonDEQ, MonDEQConfig
from deqcert.smoothing import Certifier
from deqcert.smoothing.classifier import ReferenceClassifier
from deqcert.smoothing.proved import ProvedSolves
from deqcert.smoothing.spent import Spent
from deqcert.solvers import SolverSpec
from tests.problems import DIRECTION, LinearDEQ, image_at, margin_for, violations_allowed

SIGMA = 0.25
N = 400


def two_class_mondeq() -> MonDEQ:
    """Class 1 where DIRECTION . x > 0.5, at the exact equilibrium; steps only approach it.

    Two units with opposite biases and a skew coupling: the one with the positive bias is alone,
    z = bias / m, and the other stays at 0, for any coupling up to m. Truncated solves from another
    image's equilibrium can be wrong, and are, since the steps of so strong a coupling are short.
    """
    config = MonDEQConfig(
        input_shape=(1, 1, 2), num_classes=2, width=2, m=1.0, mean=(0.0,), std=(1.0,)
    )
    model = MonDEQ(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.operator.b.weight[0, 1] = 0.9
        model.source.layer.weight[0], model.source.layer.weight[1] = -DIRECTION, DIRECTION
        model.source.layer.bias[0], model.source.layer.bias[1] = 0.5, -0.5
        model.head.layer.weight.copy_(torch.eye(2))
    return model.eval()


def certifier(method: str = "proved", **changes: object) -> Certifier:
    settings = {"n0": 40, "n": N, "alpha": 0.05, "chains": 64, "reference": "picard:60"} | changes
    return Certifier(two_class_mondeq(), sigma=SIGMA, method=method, **settings)


@pytest.mark.parametrize(("probability", "start"), [(0.6, "previous"), (0.9, "clean")])
def test_violations_stay_within_alpha(probability: float, start: str):
    subject, trials = certifier(start=start), 120
    true = margin_for(probability, SIGMA)
    violations = 0
    for seed in range(trials):
        found = subject.certify(image_at(true), seed=seed)
        assert found.guarantee == "proved"
        violations += found.prediction is not None and (
            found.prediction != 1 or found.radius > true
        )
    assert violations <= violations_allowed(trials, 0.05)


def test_the_same_draws_prove_what_long_cold_solves_label():
    image = image_at(margin_for(0.7, SIGMA))
    proved, standard = certifier(), certifier("standard")
    for seed in range(5):
        ours, theirs = proved.certify(image, seed=seed), standard.certify(image, seed=seed)
        assert 0 <= theirs.count - ours.count <= 2  # a draw on the line itself
        assert ours.radius <= theirs.radius
        assert ours.cell_evaluations < theirs.cell_evaluations / 4
        assert ours.audit is None
        assert (ours.alpha_count, ours.alpha_audit) == (0.05, 0.0)


def test_truncated_chains_would_be_wrong_where_proofs_say_nothing():
    """One step from another draw's equilibrium: its plain label is often wrong, no proof is."""
    classifier = ReferenceClassifier(two_class_mondeq(), SolverSpec("picard", 1), sigma=SIGMA)
    spent = Spent()
    solves = ProvedSolves(
        classifier,
        image_at(0.0)[0],
        spec=SolverSpec("picard", 1),
        start="previous",
        chains=64,
        spent=spent,
    )
    generator = torch.Generator().manual_seed(0)
    states, wrong, proved = None, 0, 0
    for _ in range(20):
        images = 0.5 + SIGMA * torch.randn(64, 1, 1, 2, generator=generator)
        truth = (images.flatten(1) @ DIRECTION > 0.5).long()
        labels = torch.from_numpy(solves.advance(images, 0, 64)).long()
        solves.end_batch()
        assert bool(((labels == truth) | (labels < 0)).all())
        proved += int((labels >= 0).sum())
        plain, solution = classifier.labelled(images, state0=states)
        states = solution.state
        wrong += int((torch.from_numpy(plain.label).long() != truth).sum())
    assert proved > 100
    assert wrong > 100


def test_records_do_not_depend_on_the_hardware_batch():
    image = image_at(0.1)
    found = [certifier(batch_size=rows).certify(image, seed=3) for rows in (16, 64, 400)]
    for other in found[1:]:
        assert other.counts == found[0].counts
        assert other.cell_evaluations == found[0].cell_evaluations


def test_the_record_names_the_exact_equilibrium_and_what_the_proofs_rest_on():
    found = certifier(serial="picard:3").certify(image_at(0.02), seed=0)
    assert found.reference.solver == "equilibrium"
    assert found.reference.margin == 0.0
    assert found.serial == "picard:3"
    assert {"m", "operator_norm", "slack"} <= set(found.plan["proof"])
    assert found.plan["proof"]["m"] == pytest.approx(1.0)
    assert found.plan["unproved_share"] == 1 - sum(found.counts) / N > 0


def test_predictions_are_of_the_smoothed_class():
    subject = certifier()
    assert subject.predict(image_at(0.3), n=200, seed=0) == 1
    assert subject.predict(image_at(0.0), n=200, seed=0) is None


def test_a_model_that_cannot_prove_is_refused():
    with pytest.raises(ConfigurationError, match="LinearDEQ does not"):
        Certifier(LinearDEQ(), sigma=SIGMA, method="proved")
    with pytest.raises(ConfigurationError, match="linear"):
        certifier(start="linear")


class OneBadPixel(MonDEQ):
    """Its bias is not finite for bright first pixels."""

    def inject(self, x: Tensor):
        bias, slack, size = super().inject(x)
        return torch.where(x[:, 0, 0, :1] > 0.75, torch.nan, bias), slack, size


def test_failed_draws_prove_nothing_and_spoil_no_later_one():
    model = OneBadPixel(two_class_mondeq().config)
    model.load_state_dict(two_class_mondeq().state_dict())
    image = image_at(0.2)
    subject = Certifier(
        model.eval(), sigma=SIGMA, method="proved", n0=40, n=N, chains=32, reference="picard:60"
    )
    found = subject.certify(image, seed=1)
    sampler = subject.sampler(image, seed=1, index=0)
    noisy = sampler.noisy("estimation", range(N))
    bright = noisy[:, 0, 0, 0] > 0.75
    truth = (noisy.flatten(1) @ DIRECTION > 0.5) & ~bright
    assert int(bright.sum()) > 10
    assert sum(found.counts) <= N - int(bright.sum())
    assert int(truth.sum()) - 2 <= found.counts[1] <= int(truth.sum())
