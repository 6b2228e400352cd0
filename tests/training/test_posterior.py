"""The mixture posterior against the definition, summed directly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deqcert.data import load_data
from deqcert.errors import ConfigurationError
from deqcert.training.augment import AugmentSpec
from deqcert.training.posterior import (
    MixturePosterior,
    PosteriorSpec,
    make_posterior,
    require_small,
)


def test_two_points_give_a_logistic_curve():
    """Images 0 and 1, s = 0.5: the log odds at x are (x - 1/2) / s^2."""
    posterior = MixturePosterior(
        torch.tensor([0.0, 1.0]).view(2, 1, 1, 1),
        torch.tensor([0, 1]),
        num_classes=2,
        deviation=0.5,
    )
    x = torch.tensor([-1.0, 0.3, 0.5, 2.0])
    expected = [1.0 / (1.0 + math.exp(-(float(v) - 0.5) / 0.25)) for v in x]
    found = posterior(x.view(-1, 1, 1, 1))
    torch.testing.assert_close(found[:, 1], torch.tensor(expected))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(4))


def test_digits_agree_with_the_sum_over_images():
    images, labels = load_data("digits", split="train").batch(range(200))
    noise = np.random.default_rng(0).standard_normal((5, 1, 8, 8))
    noisy = images[:5].double() + 0.5 * torch.from_numpy(noise)
    distances = (noisy[:, None] - images[None]).square().sum(dim=(2, 3, 4))  # (5, 200)
    weights = torch.exp(-distances / (2 * (0.5**2 + 0.1**2)))
    sums = torch.stack([weights[:, labels == c].sum(dim=1) for c in range(10)], dim=1)
    posterior = make_posterior(
        images,
        labels,
        num_classes=10,
        sigma=0.5,
        spec=PosteriorSpec(bandwidth=0.1),
        changes=None,
        generator=np.random.default_rng(0),
    )
    expected = (sums / sums.sum(dim=1, keepdim=True)).float()
    torch.testing.assert_close(posterior(noisy.float()), expected, atol=1e-5, rtol=1e-4)


def test_changed_copies_are_drawn_from_the_generator():
    images, labels = load_data("digits", split="train").batch(range(20))

    def at(seed: int) -> torch.Tensor:
        posterior = make_posterior(
            images,
            labels,
            num_classes=10,
            sigma=0.5,
            spec=PosteriorSpec(copies=2),
            changes=AugmentSpec(shift=1.0),
            generator=np.random.default_rng(seed),
        )
        return posterior(images)

    assert torch.equal(at(1), at(1))
    assert not torch.equal(at(1), at(2))


@pytest.mark.parametrize("change", [{"share": 1.5}, {"bandwidth": -1.0}, {"copies": 0}])
def test_values_out_of_range_are_refused(change):
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        PosteriorSpec(**change)


def test_no_deviation_at_all_is_refused():
    images, labels = load_data("digits", split="train").batch(range(2))
    with pytest.raises(ConfigurationError, match="above 0"):
        make_posterior(
            images,
            labels,
            num_classes=10,
            sigma=0.0,
            spec=PosteriorSpec(bandwidth=0.0),
            changes=None,
            generator=np.random.default_rng(0),
        )


def test_a_mixture_that_would_not_fit_in_memory_is_refused_before_it_is_loaded():
    spec, shape = PosteriorSpec(copies=4), (3, 224, 224)
    require_small(1700, shape, spec, AugmentSpec())
    with pytest.raises(ConfigurationError, match=r"8000 here, which take 4\.5 GiB; at most 4 "):
        require_small(2000, shape, spec, AugmentSpec())
    require_small(2000, shape, spec, None)  # one of each, without changes to make
