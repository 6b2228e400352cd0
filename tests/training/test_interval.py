"""Interval training: worst logits that are the certificate's, and radii that grow by it."""

from __future__ import annotations

import pytest
import torch

from deqcert.data import load_data
from deqcert.deterministic import IntervalCertifier
from deqcert.errors import ConfigurationError
from deqcert.models import MonDEQ, MonDEQConfig, build
from deqcert.training import TrainConfig, train
from deqcert.training.interval import IntervalSpec, worst_logits
from tests.training.small import ScalarModel, few_digits

SHAPES = {"dense": {}, "conv": {"kind": "conv", "width": 4, "pool": 2}}


def model_of(**changes) -> MonDEQ:
    settings = {"width": 24, "constraint": "absolute", "m": 0.5, **changes}
    return MonDEQ(MonDEQConfig(input_shape=(1, 8, 8), num_classes=10, **settings))


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_worst_logits_are_those_of_the_certificate(name):
    """With as many steps, in float64: the certificate takes off its slack alone."""
    model = model_of(**SHAPES[name]).eval()
    x, label = torch.rand(6, 1, 8, 8), torch.arange(6)
    for radius in (0.0, 0.02, 0.3):
        found = worst_logits(model, x, label, radius=radius, steps=60).detach()
        assert (found.gather(1, label[:, None]) == 0).all()
        worst = found.scatter(1, label[:, None], -torch.inf).amax(dim=1)
        certifier = IntervalCertifier(model, steps=80)
        holds = certifier.certified(x, label, radius)
        assert torch.equal(holds, worst < 0)
        lead, _ = certifier._lead(x.double(), label, torch.tensor(radius, dtype=torch.float64))
        torch.testing.assert_close(-worst.double(), lead, rtol=1e-3, atol=1e-5)


def test_it_makes_radii_larger(tmp_path):
    """The same steps on the same digits, with and without the worst logits."""
    data = few_digits(load_data("digits", split="train"), 400)
    share = {}
    for weight in (0.0, 0.7):
        config = TrainConfig(
            sigma=0.0,
            epochs=12,
            batch_size=50,
            learning_rate=1e-2,
            objective="interval",
            interval=IntervalSpec(radius=0.08, weight=weight, ramp=30),
            validation_share=0.0,
            card_copies=1,
            ema_decay=0.9,
        )
        assert TrainConfig.from_dict(config.to_dict()) == config
        torch.manual_seed(1)
        result = train(model_of(), data, out=tmp_path / str(weight), config=config)
        assert "interval" in result.log[-1]
        images, labels = data.batch(range(200))
        share[weight] = float(
            IntervalCertifier(result.model).certified(images, labels, 0.05).double().mean()
        )
    assert share[0.7] > share[0.0] + 0.1


def test_other_models_are_refused():
    x, label = torch.rand(2, 1, 28, 28), torch.zeros(2, dtype=torch.int64)
    for model in (ScalarModel(), build("mondeq-fc")):
        with pytest.raises(ConfigurationError, match="absolute"):
            worst_logits(model, x, label, radius=0.1, steps=3)
    with pytest.raises(ConfigurationError, match="radius"):
        IntervalSpec(radius=0.0)
    with pytest.raises(ConfigurationError, match="weight"):
        IntervalSpec(weight=1.5)


def test_other_models_are_refused_before_anything_is_trained(tmp_path):
    """Also where the first epochs would train the unrolled network."""
    data = load_data("digits", split="train")
    config = TrainConfig(sigma=0.0, objective="interval", pretrain_epochs=2, epochs=4)
    quadratic = model_of(constraint="quadratic")
    for model, what in (("mdeq-digits", "got a MDEQ"), (quadratic, "'quadratic'")):
        with pytest.raises(ConfigurationError, match=f"interval objective needs.*{what}"):
            train(model, data, out=tmp_path / "run", config=config)
    assert not (tmp_path / "run").exists()
