"""Geometric changes: bounded, keyed, and what their names say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deqcert.data import load_data
from deqcert.errors import ConfigurationError
from deqcert.training.augment import AugmentSpec, augment

STILL = AugmentSpec(rotate=0.0, shift=0.0, scale=0.0, stretch=0.0, shear=0.0)


class Fixed:
    """A generator that always draws the same extreme."""

    def __init__(self, u: list[float], coin: float = 0.9) -> None:
        self.u, self.coin = np.array(u), coin

    def uniform(self, low: float, high: float, size: tuple[int, int]) -> np.ndarray:
        assert (low, high) == (-1.0, 1.0)
        return np.repeat(self.u[:, None], size[1], axis=1)

    def random(self, count: int) -> np.ndarray:
        return np.full(count, self.coin)


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return load_data("digits", split="train").batch(range(64))[0]


def test_no_change_gives_the_images(digits):
    torch.testing.assert_close(augment(digits, STILL, np.random.default_rng(0)), digits)


def test_pixels_stay_in_range_and_the_generator_decides(digits):
    spec = AugmentSpec(rotate=30.0, shift=1.5, scale=0.2, stretch=0.1, shear=0.3)
    first, again, other = (augment(digits, spec, np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.min()) >= 0.0
    assert float(first.max()) <= 1.0 + 1e-6
    assert len({part.numpy().tobytes() for part in first - digits}) == 64, "each its own change"


def test_a_shift_of_one_pixel_moves_columns(digits):
    spec = AugmentSpec(rotate=0.0, shift=1.0, scale=0.0, stretch=0.0, shear=0.0)
    moved = augment(digits, spec, Fixed([0, 0, 0, 0, 1, 0]))  # pyright: ignore
    torch.testing.assert_close(moved[..., :-1], digits[..., 1:], atol=1e-5, rtol=0)
    assert float(moved[..., -1].abs().max()) < 1e-5
    down = augment(digits, spec, Fixed([0, 0, 0, 0, 0, -1]))  # pyright: ignore
    torch.testing.assert_close(down[:, :, 1:], digits[:, :, :-1], atol=1e-5, rtol=0)


def test_a_quarter_turn_turns(digits):
    spec = AugmentSpec(rotate=90.0, shift=0.0, scale=0.0, stretch=0.0, shear=0.0)
    turned = augment(digits, spec, Fixed([1, 0, 0, 0, 0, 0]))  # pyright: ignore
    torch.testing.assert_close(turned, digits.rot90(1, (2, 3)), atol=1e-4, rtol=0)


def test_half_of_the_images_are_mirrored_when_asked(digits):
    spec = AugmentSpec(rotate=0, shift=0, scale=0, stretch=0, shear=0, flip=True)
    mirrored = augment(digits, spec, Fixed([0] * 6, coin=0.1))  # pyright: ignore
    torch.testing.assert_close(mirrored, digits.flip(3), atol=1e-5, rtol=0)
    kept = augment(digits, spec, Fixed([0] * 6, coin=0.6))  # pyright: ignore
    torch.testing.assert_close(kept, digits, atol=1e-5, rtol=0)


def test_crops_are_windows_of_the_image_in_zeros(digits):
    spec = AugmentSpec.crop_and_flip(2)
    found = augment(digits, spec, np.random.default_rng(3))
    padded = torch.nn.functional.pad(digits, [2] * 4)
    windows = [padded[:, :, i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
    kept = torch.stack([(w == found).flatten(1).all(1) for w in windows])
    turned = torch.stack([(w.flip(3) == found).flatten(1).all(1) for w in windows])
    assert bool((kept | turned).any(0).all()), "each image is a window, or one mirrored"
    assert 12 <= int(turned.any(0).sum()) <= 52, "half of them, 5 standard deviations"
    places = (kept | turned).float().argmax(0).unique()
    assert len(places) > 15, "from all over"
    assert torch.equal(found, augment(digits, spec, np.random.default_rng(3)))


@pytest.mark.parametrize(
    "change",
    [
        {"rotate": -1.0},
        {"shift": -0.1},
        {"scale": 1.0},
        {"shear": "x"},
        {"shift": True},
        {"crop": -1},
        {"crop": 1.5},
    ],
)
def test_values_out_of_range_are_refused(change):
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        AugmentSpec(**change)
