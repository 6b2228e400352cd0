"""Certifier: records, refusals, repeatability, failing draws, near ties, predictions."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from deqcert.certificate import Certificate
from deqcert.errors import ConfigurationError, InputError, NumericalWarning, UnknownNameError
from deqcert.models import weights_digest
from deqcert.runners import certify_dataset
from deqcert.smoothing import Certifier, Labels, majority_class
from deqcert.solvers import memory_bytes
from deqcert.stats import clopper_pearson_lower
from tests.problems import LinearDEQ, StickyDEQ, TwoClassDEQ, image_at, margin_for

SIGMA = 0.25
MARGIN = margin_for(0.9, SIGMA)


def certifier(model: TwoClassDEQ | None = None, **settings) -> Certifier:
    defaults = {"sigma": SIGMA, "n0": 50, "n": 300, "serial": "picard:1", "warmup": "picard:3"}
    return Certifier(model or LinearDEQ(), **{**defaults, "chains": 50, **settings})


def same(a: Certificate, b: Certificate) -> bool:
    return {**a.to_json(), "seconds": 0} == {**b.to_json(), "seconds": 0}


@pytest.mark.parametrize("method", ["standard", "srs", "srs-paper"])
def test_the_record_is_complete_and_survives_json(method: str):
    model = LinearDEQ()
    found = certifier(model, method=method, audit=60).certify(image_at(MARGIN), seed=7, index=3)
    assert Certificate.from_json(found.to_json()) == found
    assert (found.prediction, found.seed, found.index, found.n0, found.n) == (1, 7, 3, 50, 300)
    assert sum(found.counts) == 300
    assert sum(found.counts0) == 50
    assert found.reference.solver == "picard:3"
    assert found.reference.weights_digest == weights_digest(model)
    assert found.noise.startswith("numpy-philox")
    assert 0 < found.radius <= SIGMA * norm.ppf(found.p_lower)
    assert found.steps["1"] <= 3
    guarantees = {"standard": "standard", "srs": "audited", "srs-paper": "none"}
    assert found.guarantee == guarantees[method]
    if method == "srs":
        assert found.audit is not None
        assert found.audit.drawn == 60
        assert found.count == found.counts[1] - found.audit.disagreements
        assert (found.serial, found.warmup, found.start) == ("picard:1", "picard:3", "previous")


def test_standard_is_clopper_pearson_of_the_counted_draws():
    found = certifier(method="standard").certify(image_at(MARGIN), seed=0)
    bound = float(clopper_pearson_lower(found.counts[1], 300, 0.001))
    assert found.p_lower == bound
    assert found.radius == pytest.approx(SIGMA * norm.ppf(bound), rel=1e-12)
    assert found.cell_evaluations == 350 * 3


@pytest.mark.parametrize("method", ["standard", "srs", "srs-paper"])
@pytest.mark.parametrize("start", ["previous", "clean", "linear"])
def test_the_hardware_batch_size_changes_nothing(method: str, start: str):
    found = [
        certifier(StickyDEQ(), method=method, start=start, batch_size=size, audit=60).certify(
            image_at(MARGIN), seed=1
        )
        for size in (7, 50, 400)
    ]
    assert same(found[0], found[1])
    assert same(found[0], found[2])


def test_a_seed_repeats_and_none_is_recorded():
    subject = certifier()
    first, second = (subject.certify(image_at(MARGIN)) for _ in range(2))
    assert first.seed != second.seed
    assert same(first, subject.certify(image_at(MARGIN), seed=first.seed))


class FailingDEQ(LinearDEQ):
    """Gives NaN where the other noise direction is large: for 20 % of the draws."""

    def inject(self, x: torch.Tensor) -> torch.Tensor:
        across = x.flatten(1) @ torch.tensor([[-0.8], [0.6]])
        bad = across > SIGMA * norm.ppf(0.8)
        return torch.where(bad, torch.nan, super().inject(x))


@pytest.mark.parametrize("method", ["standard", "srs"])
def test_failed_draws_count_as_not_the_class(method: str):
    image = image_at(margin_for(0.96, SIGMA))
    found = certifier(FailingDEQ(), method=method, n=1000, audit=200).certify(image, seed=0)
    assert found.prediction == 1
    assert 0.15 < 1 - sum(found.counts) / 1000 < 0.25
    assert found.p_lower < 0.82
    assert found.unconverged > 100


def test_a_model_that_always_fails_abstains():
    class Broken(LinearDEQ):
        def classify(self, state: torch.Tensor) -> torch.Tensor:
            return super().classify(state) * math.inf

    for method in ("standard", "srs", "srs-paper"):
        with pytest.warns(NumericalWarning, match="no probe has finite logits"):
            subject = certifier(Broken(), method=method)
        found = subject.certify(image_at(MARGIN), seed=0)
        assert found.prediction is None
        assert found.radius == 0.0
        assert sum(found.counts) == 0


def test_near_ties_do_not_count_for_the_class():
    subject = certifier(method="standard")
    plain = subject.certify(image_at(MARGIN), seed=0)
    subject.classifier.margin = 0.2
    strict = subject.certify(image_at(MARGIN), seed=0)
    assert strict.count < plain.count
    assert strict.radius < plain.radius
    assert strict.reference.margin == 0.2


def test_the_margin_is_above_what_the_batch_shape_moves():
    subject = certifier()
    assert 0 < subject.classifier.margin < 1e-4
    assert math.log2(subject.classifier.margin).is_integer()


def test_a_hopeless_image_is_given_up_by_srs_but_counted_by_standard():
    class Five(LinearDEQ):
        """Five classes, all equally likely: the sign is only one of the coins tossed."""

        def __init__(self) -> None:
            super().__init__()
            self.num_classes = 5

        def inject(self, x: torch.Tensor) -> torch.Tensor:
            # Fine slices of the noise: the class is a hash of where the draw falls.
            return (x.flatten(1).sum(1, keepdim=True) * 1000).floor() % 5

        def cell(self, state: torch.Tensor, injection: torch.Tensor) -> torch.Tensor:
            return injection

        def classify(self, state: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(state[:, 0].long(), 5).float()

    audited = certifier(Five(), n0=100).certify(image_at(MARGIN), seed=0)
    assert audited.prediction is None
    assert audited.plan["method"] == "abstain"
    assert audited.cell_evaluations < 100 * (3 + 3)
    counted = certifier(Five(), method="standard").certify(image_at(MARGIN), seed=0)
    assert counted.prediction is None
    assert sum(counted.counts) == 300


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, "sigma must be finite and > 0, but got 0.0"),
        ({"sigma": "a"}, "sigma must be a number, but got 'a'"),
        ({"alpha": None}, "alpha must be a number, but got None"),
        ({"sigma": -1.0}, "sigma"),
        ({"sigma": math.nan}, "sigma"),
        ({"sigma": 1e-46}, "sigma must lie in the range of float32"),  # there it is zero
        ({"sigma": 1e39}, "sigma must lie in the range of float32"),
        ({"alpha": 0.0}, r"alpha must lie in \(0, 1\)"),
        ({"alpha": 1.0}, "alpha"),
        ({"n0": 0}, "n0 must be an integer >= 1, but got 0"),
        ({"n": 0}, "n must be"),
        ({"n": 9, "method": "standard"}, "10"),
        ({"n": 9}, "n"),
        ({"audit": 301}, "audit"),
        ({"audit": 0}, "audit"),
        ({"audit": 1.5}, "audit"),
        ({"audit": "some"}, "audit"),
        ({"audit": None}, "audit must be an integer >= 1, but got None"),
        ({"device": 3.5}, "device '3.5' is none"),
        ({"chains": 0}, "chains must be"),
        ({"batch_size": -3}, "batch_size must be"),
        ({"dtype": "int8"}, "precision must be one of"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str):
    with pytest.raises(ConfigurationError, match=message):
        certifier(**settings)


@pytest.mark.parametrize(
    ("settings", "near"),
    [
        ({"method": "standart"}, "did you mean 'standard'"),
        ({"reference": "andersen:30"}, "did you mean 'anderson'"),
        ({"start": "prevous"}, "did you mean 'previous'"),
    ],
)
def test_unknown_names_list_near_ones(settings: dict, near: str):
    with pytest.raises(UnknownNameError, match=near):
        certifier(**settings)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 2, 2), r"shape \(1, 1, 2\), but got \(1, 2, 2\)"),
        (torch.full((1, 1, 2), 1.01), r"\[0, 1\]"),
        (torch.full((1, 1, 2), -0.01), r"\[0, 1\]"),
        (torch.full((1, 1, 2), torch.nan), "finite"),
        (torch.zeros(1, 1, 2, dtype=torch.uint8), "floating point"),
        (np.full((1, 1, 2), np.inf), "finite"),
        (np.full((1, 1, 2), "white", dtype=object), "an array of numbers"),
        (None, "an array of numbers"),
        ("digits", "an array of numbers"),
    ],
)
def test_bad_images_are_refused(image, message: str):
    with pytest.raises(InputError, match=message):
        certifier().certify(image, seed=0)


def test_images_are_taken_however_they_lie_in_memory():
    plain = image_at(MARGIN).numpy()
    frozen = plain.copy()
    frozen.flags.writeable = False
    subject = certifier(method="standard")
    expected = subject.certify(plain, seed=0)
    for image in (plain[..., ::-1].copy()[..., ::-1], plain.astype(">f4"), frozen):
        assert same(subject.certify(image, seed=0), expected)


def test_numpy_integers_are_recorded_as_json():
    counts = {"n0": np.int64(50), "n": np.int32(300), "chains": np.int64(50), "audit": np.int64(60)}
    found = certifier(**counts).certify(image_at(MARGIN), seed=np.int64(0), index=np.int64(2))
    assert Certificate.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_another_training_sigma_warns():
    model = LinearDEQ()
    model.card = {"sigma": 0.5}
    with pytest.warns(NumericalWarning, match=r"trained at sigma 0\.5"):
        certifier(model)
    model.card = {"sigma": SIGMA}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        certifier(model)


@pytest.mark.parametrize("width", [1, 3, 20])
def test_logits_that_are_not_the_classes_are_refused(width: int):
    class Wide(LinearDEQ):
        def classify(self, state: torch.Tensor) -> torch.Tensor:
            return state.expand(-1, width)

    with pytest.raises(ConfigurationError, match=r"logits of shape \(batch, 2\)"):
        certifier(Wide())


def test_proofs_are_not_about_rounded_images():
    with pytest.raises(ConfigurationError, match="bfloat16 would round"):
        certifier(method="proved", dtype="bfloat16")


def test_labels_in_place_of_logits_are_refused():
    class Decided(LinearDEQ):
        def classify(self, state: torch.Tensor) -> torch.Tensor:
            return super().classify(state).argmax(1)

    with pytest.raises(ConfigurationError, match="floating-point logits"):
        certifier(Decided())


def test_the_model_itself_is_left_as_it_was():
    model = LinearDEQ().train()
    certifier(model).certify(image_at(MARGIN), seed=0)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("method", ["standard", "srs"])
def test_predict_returns_the_smoothed_class_or_abstains(method: str):
    subject = certifier(method=method, audit=100)
    assert subject.predict(image_at(MARGIN), n=300, alpha=0.01, seed=0) == 1
    assert subject.predict(image_at(-0.2), n=300, alpha=0.01, seed=0) == 0
    assert subject.predict(image_at(0.0), n=300, alpha=0.001, seed=0) is None


def test_a_vote_that_cannot_decide_is_refused():
    certifier = Certifier(LinearDEQ(), sigma=0.1, n=100, method="standard")
    with pytest.raises(ConfigurationError, match=r"n = 10 .* can never decide.*needs n >= 11"):
        certifier.predict(image_at(0.48), n=10, seed=0)
    assert certifier.predict(image_at(0.48), n=11, seed=0) == 1
    with pytest.raises(ConfigurationError, match="needs n >= 2"):
        certifier.predict(image_at(0.48), n=1, alpha=0.5, seed=0)


def test_names_in_place_of_what_they_name_are_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="load_model gives, but got a str"):
        Certifier("mdeq-digits", sigma=0.25)  # pyright: ignore[reportArgumentType]
    certifier = Certifier(LinearDEQ(), sigma=0.25, n=100)
    with pytest.raises(ConfigurationError, match="load_data gives, but got a str"):
        certify_dataset(certifier, "digits", out=tmp_path)  # pyright: ignore[reportArgumentType]


def test_predict_takes_fewer_draws_than_the_audit_of_certificates():
    subject = certifier(method="srs", n=2000, audit=900)
    assert subject.predict(image_at(MARGIN), n=300, alpha=0.01, seed=0) == 1


def test_a_rule_without_guarantee_predicts_nothing():
    with pytest.raises(ConfigurationError, match="no guarantee"):
        certifier(method="srs-paper", audit=60).predict(image_at(MARGIN), n=300, seed=0)


def test_predict_errs_with_probability_at_most_alpha():
    """At p = 0.52 a draw of 200 returns the wrong class rarely, and never above alpha."""
    subject = certifier(method="standard")
    image = image_at(margin_for(0.52, SIGMA))
    wrong = sum(subject.predict(image, n=200, alpha=0.2, seed=s) == 0 for s in range(400))
    assert wrong <= 400 * 0.2 / 2 + 4 * math.sqrt(400 * 0.1 * 0.9)


def test_near_ties_count_for_the_runner_up():
    label = np.array([1] * 80 + [0] * 20, dtype=np.int32)
    lead = np.ones(100, dtype=np.float32)
    facts = {"classes": 2, "alpha": 0.001}
    assert majority_class(Labels(label, lead), margin=0.1, **facts) == 1
    lead[:30] = 0.05  # 50 clear ones against 20, but 30 near ties may all be the other class
    assert majority_class(Labels(label, lead), margin=0.1, **facts) is None
    failed = np.array([-1] * 60 + [1] * 40, dtype=np.int32)
    assert majority_class(Labels(failed, np.ones(100, np.float32)), margin=0.1, **facts) is None


def test_defaults_come_from_the_model_and_then_from_the_paper():
    def solvers(own: str, **settings) -> tuple[str, str, str]:
        found = Certifier(LinearDEQ(solver=own), sigma=0.5, n=20, **settings).settings
        return found.reference, found.serial, found.warmup

    assert solvers("anderson:30") == ("anderson:30", "anderson:3", "anderson:10")
    assert solvers("picard:3") == ("picard:3", "picard:1", "picard:3")
    assert solvers("picard:8") == ("picard:8", "anderson:3", "picard:8")
    assert solvers("picard:3", reference="anderson:30")[1:] == ("anderson:3", "anderson:10")
    assert solvers("picard:3", serial="picard:2", warmup="picard:9")[1:] == ("picard:2", "picard:9")


def test_the_default_batch_follows_the_memory_a_solve_needs():
    assert certifier().batch_size == 400

    class Wide(LinearDEQ):
        """A state of 200,000 numbers a row, as on ImageNet."""

        def initial_state(self, injection: torch.Tensor) -> torch.Tensor:
            return injection.new_zeros(len(injection), 200_000)

        def cell(self, state: torch.Tensor, injection: torch.Tensor) -> torch.Tensor:
            return 0.5 * state + injection

    wide = certifier(Wide(), warmup="anderson:10")
    assert 16 <= wide.batch_size < 400
    history = memory_bytes("anderson:10", wide.batch_size, 200_000)
    assert history <= 2 * 1024**3
