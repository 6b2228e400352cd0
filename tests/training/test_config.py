"""Settings: refused with a line that names them, and the same after a trip through JSON."""

from __future__ import annotations

import json

import pytest

from deqcert.errors import ConfigurationError, UnknownNameError
from deqcert.models import GradientSpec
from deqcert.training import AugmentSpec, PosteriorSpec, ShortSolveSpec, SmoothAdvSpec, TrainConfig


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(sigma=0.5),
        TrainConfig(
            sigma=0.25,
            objective="equilibrium",
            gradient=GradientSpec(solver="picard:5"),  # pyright: ignore
            augment=None,
            posterior=None,
            seed=2**80,
        ),
        TrainConfig(
            sigma=0,
            short=ShortSolveSpec(steps=(1, 7), weights=(0, 1)),
            augment=AugmentSpec(flip=True),
            posterior=PosteriorSpec(share=0.5),
        ),
        TrainConfig(
            sigma=0.5,
            optimizer="sgd",
            clip_norm=None,
            solver="broyden:8",
            solver_jitter=(-2, 1),
            smooth_adv=SmoothAdvSpec(epsilon=0.5),
            augment=AugmentSpec.crop_and_flip(4),
        ),
    ],
)
def test_json_round_trip(config):
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sigma", -0.1),
        ("sigma", float("nan")),
        ("epochs", 0),
        ("epochs", 2.5),
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("learning_rate", "fast"),
        ("final_share", 1.5),
        ("warmup_steps", -1),
        ("weight_decay", -1.0),
        ("betas", (0.9, 1.0)),
        ("betas", (0.9,)),
        ("clip_norm", 0.0),
        ("label_smoothing", 1.0),
        ("ema_decay", 1.0),
        ("momentum", 1.0),
        ("solver", "picard"),
        ("solver_jitter", (-3, 0)),
        ("solver_jitter", (1, 2)),
        ("solver_jitter", (0.5, 1)),
        ("jacobian_until", -1),
        ("jacobian_growth", -0.1),
        ("pretrain_jacobian_weight", -1.0),
        ("pretrain_updates", -1),
        ("card_every", 0),
        ("pretrain_epochs", -1),
        ("pretrain_steps", 0),
        ("jacobian_weight", float("inf")),
        ("jacobian_frequency", 2.0),
        ("validation_share", 1.0),
        ("validate_every", 0),
        ("card_copies", 0),
        ("seed", -1),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=name):
        TrainConfig(**{"sigma": 0.5, name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": ()}, "steps"),
        ({"steps": (0,), "weights": (1.0,)}, "steps"),
        ({"steps": (4, 3)}, "ascend"),
        ({"steps": (3,)}, "as many weights"),
        ({"weights": (0.5, -0.5)}, "weights"),
        ({"equilibrium_weight": 0.0}, "equilibrium_weight"),
        ({"warm_steps": 0}, "warm_steps"),
        ({"agreement_weight": -1.0}, "agreement_weight"),
    ],
)
def test_short_solve_settings_are_checked(change, message):
    with pytest.raises(ConfigurationError, match=message):
        ShortSolveSpec(**change)


def test_implicit_gradients_need_float32():
    with pytest.raises(ConfigurationError, match="bfloat16 needs unrolled or phantom"):
        TrainConfig(sigma=0.5, precision="bfloat16", gradient=GradientSpec(method="implicit"))


def test_unknown_names_are_refused_with_the_near_ones():
    with pytest.raises(UnknownNameError, match="short-solve"):
        TrainConfig(sigma=0.5, objective="short-solv")
    with pytest.raises(UnknownNameError, match="adamw"):
        TrainConfig(sigma=0.5, optimizer="adam")
    with pytest.raises(UnknownNameError, match="bfloat16"):
        TrainConfig(sigma=0.5, precision="bf16")
    with pytest.raises(UnknownNameError, match=r"smooth_adv\.epsilon"):
        TrainConfig.from_dict({"sigma": 0.5, "smooth_adv": {"eps": 1.0}})
    with pytest.raises(UnknownNameError, match="learning_rate"):
        TrainConfig.from_dict({"sigma": 0.5, "learningrate": 1.0})
    with pytest.raises(UnknownNameError, match=r"short\.warm_steps"):
        TrainConfig.from_dict({"sigma": 0.5, "short": {"warmsteps": 2}})
    with pytest.raises(ConfigurationError, match="sigma"):
        TrainConfig.from_dict({})
