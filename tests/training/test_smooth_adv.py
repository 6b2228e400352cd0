"""SmoothAdv against gradients computed by hand with NumPy for a linear classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from deqcert.errors import ConfigurationError
from deqcert.smoothing.noise import keyed_generator
from deqcert.training import SmoothAdvSpec, TrainConfig
from deqcert.training.run import TrainingRun
from deqcert.training.smooth_adv import attack, soft_loss
from tests.training.small import ScalarModel, two_levels

WEIGHT = np.array([[3.0, -1.0], [0.5, 2.0], [-2.0, 0.3]])  # 3 classes of 2 pixels
PIXELS = np.array([[0.4, 0.6], [0.5, 0.3]])
TARGETS = np.array([[0.0, 1.0, 0.0], [0.75, 0.0, 0.25]])
NOISE = np.array([[[0.3, -0.2], [0.1, 0.4]], [[-0.5, 0.1], [0.2, -0.3]], [[0.0, 0.6], [-0.4, 0.1]]])


def as_images(rows: np.ndarray) -> Tensor:  # (..., 2) -> (..., 1, 1, 2)
    return torch.from_numpy(rows).float()[..., None, None, :]


def logits(x: Tensor) -> Tensor:
    return x.flatten(1) @ torch.from_numpy(WEIGHT).float().T


def gradient_by_hand(pixels: np.ndarray) -> np.ndarray:
    """d/dx of -sum_c t_c log mean_i p_c(x + n_i), with dp_c/dx = p_c (W_c - sum_k p_k W_k)."""
    result = np.zeros_like(pixels)
    for row, (x, target) in enumerate(zip(pixels, TARGETS, strict=True)):
        scores = (x + NOISE[:, row]) @ WEIGHT.T
        p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)  # (m, classes)
        slopes = p[:, :, None] * (WEIGHT[None] - (p @ WEIGHT)[:, None, :])  # (m, classes, 2)
        result[row] = -(target / p.mean(axis=0)) @ slopes.mean(axis=0)
    return result


def attack_by_hand(epsilon: float, steps: int) -> np.ndarray:
    shift = np.zeros_like(PIXELS)
    for _ in range(steps):
        gradient = gradient_by_hand(PIXELS + shift)
        shift = shift + 2 * epsilon / steps * gradient / np.linalg.norm(gradient, axis=1)[:, None]
        norms = np.linalg.norm(shift, axis=1)[:, None]
        shift = np.where(norms > epsilon, shift * epsilon / norms, shift)
        shift = np.clip(PIXELS + shift, 0.0, 1.0) - PIXELS
    return PIXELS + shift


def found(epsilon: float, steps: int) -> Tensor:
    images, targets = as_images(PIXELS), torch.from_numpy(TARGETS).float()
    return attack(logits, images, targets, as_images(NOISE), epsilon=epsilon, steps=steps)


def test_the_gradient_is_the_one_of_the_averaged_softmax():
    images = as_images(PIXELS).requires_grad_()
    loss = soft_loss(logits, images, torch.from_numpy(TARGETS).float(), as_images(NOISE))
    (slope,) = torch.autograd.grad(loss, images)
    expected = as_images(gradient_by_hand(PIXELS))
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("epsilon", [0.1, 0.25, 2.0])  # the last one is cut at black and white
def test_the_attack_follows_the_gradient_within_ball_and_pixels(epsilon, steps):
    images = found(epsilon, steps)
    torch.testing.assert_close(images, as_images(attack_by_hand(epsilon, steps)), atol=1e-5, rtol=0)
    assert float((images - as_images(PIXELS)).flatten(1).norm(dim=1).max()) <= epsilon + 1e-6
    assert float(images.min()) >= 0.0
    assert float(images.max()) <= 1.0


def test_the_attack_lowers_the_soft_score():
    targets = torch.from_numpy(TARGETS).float()
    before = soft_loss(logits, as_images(PIXELS), targets, as_images(NOISE))
    after = soft_loss(logits, found(0.25, 5), targets, as_images(NOISE))
    assert float(after) > float(before) + 0.1


def test_no_radius_is_no_change():
    assert torch.equal(found(0.0, 3), as_images(PIXELS))


def test_epsilon_rises_over_the_first_epochs():
    spec = SmoothAdvSpec(epsilon=0.5, warmup_epochs=4)
    assert [spec.epsilon_at(epoch) for epoch in (0, 1, 3, 9)] == [0.125, 0.25, 0.5, 0.5]
    assert SmoothAdvSpec(epsilon=0.5, warmup_epochs=0).epsilon_at(0) == 0.5


def test_training_sees_the_attacked_images_under_the_noise_of_the_attack():
    """f(z) = z / 2 + x: the attack on a white pixel darkens it, on a black one brightens it."""
    spec = SmoothAdvSpec(epsilon=0.2, steps=2, samples=3, warmup_epochs=0)
    config = TrainConfig(sigma=0.3, batch_size=8, smooth_adv=spec, validation_share=0.0)
    plain = TrainConfig(sigma=0.3, batch_size=8, validation_share=0.0)
    rows = np.arange(8)
    drawn = []
    for settings in (config, plain):
        run = TrainingRun(ScalarModel(), two_levels(), settings)
        run.model.train()
        generator = keyed_generator(0, 0, "test")
        drawn.append(run.batches.draw(run.model, generator, run.data.batch(rows), epoch=0, step=0))
        assert run.model.training
        assert all(p.grad is None for p in run.model.parameters())
    attacked, clean = drawn
    assert attacked.images.shape == (24, 1, 1, 1)
    assert torch.equal(attacked.targets, clean.targets.repeat(3, 1))
    sign = torch.where(clean.targets[:, 0] == 1.0, -1.0, 1.0).view(-1, 1, 1, 1)
    torch.testing.assert_close(attacked.images[:8] - clean.images, 0.2 * sign)
    assert attacked.other is not None
    assert attacked.other.shape == attacked.images.shape


@pytest.mark.parametrize("change", [{"epsilon": 0.0}, {"steps": 0}, {"samples": 0}])
def test_values_out_of_range_are_refused(change):
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        SmoothAdvSpec(**change)
