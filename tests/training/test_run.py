"""Epochs: keyed randomness, guards against divergence, what is learnt."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from deqcert.data import load_data
from deqcert.errors import ConfigurationError, TrainingError
from deqcert.models import load_model
from deqcert.smoothing.noise import keyed_generator
from deqcert.training import ShortSolveSpec, TrainConfig, TrainWatch, train
from deqcert.training.batches import Batches
from deqcert.training.losses import Batch
from deqcert.training.run import TrainingRun, split_rows
from tests.training.small import ScalarModel, few_digits, two_levels

CONFIG = TrainConfig(
    sigma=0.3,
    epochs=4,
    batch_size=8,
    learning_rate=0.05,
    warmup_steps=2,
    pretrain_epochs=0,
    augment=None,
    posterior=None,
    # A scalar state may be near 0, and distances relative to it are then large.
    short=ShortSolveSpec(closeness_weight=0.0, warm_weight=1e-6, agreement_weight=1.0),
    validation_share=0.2,
    validation_copies=1,
    card_copies=1,
    seed=5,
)


def quiet(loss: float) -> None:
    del loss


class Recorded(Batches):
    """Keeps the batches it draws."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # pyright: ignore
        self.kept: list[Batch] = []

    def draw(self, *arguments: object, **named: object) -> Batch:
        self.kept.append(super().draw(*arguments, **named))  # pyright: ignore
        return self.kept[-1]


def batches(config: TrainConfig, epoch: int, noise: int) -> list[Tensor]:
    torch.manual_seed(noise)
    np.random.seed(noise)
    run = TrainingRun(ScalarModel(), two_levels(), config)
    run.batches = Recorded(run.data, run.split.train, config, torch.device("cpu"))
    run.epoch(epoch, {}, quiet)
    return [
        part
        for b in run.batches.kept
        for part in (b.images, b.targets, b.other)
        if part is not None
    ]


def replaced(**changes: object) -> TrainConfig:
    return TrainConfig.from_dict({**CONFIG.to_dict(), **changes})


def test_batches_depend_on_seed_and_epoch_alone():
    first, second = batches(CONFIG, 1, noise=1), batches(CONFIG, 1, noise=2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for other in (batches(CONFIG, 2, 1), batches(replaced(seed=5 + 2**32), 1, 1)):
        assert not any(torch.equal(a, b) for a, b in zip(first[::3], other[::3], strict=True))


def test_training_leaves_the_global_generators_alone():
    before = torch.get_rng_state()
    TrainingRun(ScalarModel(), two_levels(), CONFIG).epoch(0, {}, quiet)
    assert torch.equal(before, torch.get_rng_state())


def test_noise_has_the_asked_deviation_and_the_two_copies_are_independent():
    config = replaced(batch_size=500, sigma=0.5)
    run = TrainingRun(ScalarModel(), two_levels(1250), config)
    drawn = keyed_generator(0, 0, "test")
    batch = run.batches.draw(run.model, drawn, run.data.batch(range(500)), epoch=0, step=0)
    assert batch.other is not None
    clean = batch.targets[:, :1].view(-1, 1, 1, 1)
    noise, other = (batch.images - clean).flatten(), (batch.other - clean).flatten()
    for part in (noise, other):
        assert float(part.std()) == pytest.approx(0.5, rel=0.1)  # 3 standard errors
        assert abs(float(part.mean())) < 3 * 0.5 / math.sqrt(500)
    assert abs(float(torch.corrcoef(torch.stack([noise, other]))[0, 1])) < 3 / math.sqrt(500)


def test_held_out_images_are_not_trained_on():
    split = split_rows(100, replaced(validation_share=0.25))
    assert len(split.held_out) == 25
    assert sorted([*split.train, *split.held_out]) == list(range(100))


def test_a_batch_above_the_data_is_refused():
    with pytest.raises(ConfigurationError, match="batch_size 64 is above the 32"):
        split_rows(40, replaced(batch_size=64))


@pytest.mark.parametrize("objective", ["short-solve", "equilibrium"])
def test_training_learns(tmp_path, objective):
    """Black against white at sigma 0.3: the best accuracy under noise is Phi(0.5 / 0.3) = 0.952.

    The logits are odd in z and the pixel is not centred, so the scalar model itself can only tell
    signs; it must learn to drive white up, whatever it does to black.
    """
    start = ScalarModel(gain=-0.5)  # calls white black
    config = replaced(epochs=15, objective=objective, ema_decay=0.9)
    result = train(start, two_levels(), out=tmp_path / "run", config=config)
    assert float(start.gain.detach()) == -0.5, "a copy is trained"
    assert result.model(torch.ones(1, 1, 1, 1)).argmax() == 0
    losses = [line["loss"] for line in result.log]
    assert losses[-1] < losses[0]


def test_a_loss_that_is_not_finite_stops_with_the_last_checkpoint_kept(tmp_path):
    config = replaced(epochs=6)
    calls = []

    class Poisoned(ScalarModel):
        def inject(self, x: Tensor) -> Tensor:
            calls.append(1)
            out = super().inject(x)
            # From the third epoch on; two injections (image, other copy) a step, 4 steps an epoch.
            return out * math.nan if self.training and len(calls) > 40 else out

    done = []
    watch = TrainWatch(finished=lambda record: done.append(record["epoch"]))
    with pytest.raises(TrainingError, match=r"not finite at epoch .* learning rate .* kept"):
        train(Poisoned(), two_levels(), out=tmp_path / "run", config=config, watch=watch)
    assert done
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_gradient_that_is_not_finite_does_not_reach_the_weights():
    model = ScalarModel()
    run = TrainingRun(model, two_levels(), CONFIG)
    model.gain.register_hook(lambda grad: grad * math.inf)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingError, match="epoch 1, step 1"):
        run.epoch(0, {}, quiet)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_divergence_is_an_error():
    """slope 1.5: a short solve that blows up is finite after a few steps, and useless."""
    config = replaced(short=ShortSolveSpec(steps=(8,), weights=(1.0,)), learning_rate=1e-9)
    run = TrainingRun(ScalarModel(slope=1.5, gain=-5.0), two_levels(), config)
    with pytest.raises(TrainingError, match="diverged"):
        run.epoch(0, {}, quiet)


def test_it_goes_on_from_trained_weights(tmp_path):
    """At next to no learning rate they stay what they were."""
    trained, data = load_model("mdeq-digits"), few_digits(load_data("digits", split="train"), 40)
    config = TrainConfig(
        sigma=0.5, epochs=1, batch_size=16, learning_rate=1e-12, card_copies=1, ema_decay=0.0
    )
    found = train("mdeq-digits", data, out=tmp_path / "run", config=config, weights=trained).model
    wanted = dict(trained.named_parameters())
    for name, parameter in found.named_parameters():
        torch.testing.assert_close(parameter, wanted[name], rtol=0.0, atol=1e-9)
    with pytest.raises(ConfigurationError, match="name of an architecture"):
        train(trained, data, out=tmp_path / "other", config=config, weights=trained)
