"""The numbers of a run: by hand, and against an independent reimplementation in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from deqcert.errors import ConfigurationError, RunFolderError
from deqcert.results.records import make_record
from deqcert.results.summary import default_radii, high_probability_accuracy, summarize
from tests.results.made import audited, certificate

BY_HAND = [
    make_record(certificate(0, radius=0.25, seconds=1.0, cell_evaluations=100), label=0),
    make_record(certificate(1, radius=0.75, seconds=2.0, cell_evaluations=300), label=0),
    make_record(certificate(2, radius=2.0, seconds=3.0, cell_evaluations=200), label=1),
    make_record(
        certificate(3, prediction=None, radius=0.0, seconds=6.0, cell_evaluations=0, unconverged=8),
        label=0,
    ),
]


def test_by_hand() -> None:
    found = summarize(BY_HAND, radii=[0.0, 0.25, 0.26, 0.75, 2.0], name="hand")
    assert found.certified_accuracy == (0.5, 0.5, 0.25, 0.25, 0.0)
    assert found.average_certified_radius == (0.25 + 0.75) / 4
    assert found.largest_radius == 0.75, "the wrong prediction's 2.0 does not count"
    assert (found.images, found.abstentions) == (4, 1)
    assert (found.seconds, found.cell_evaluations) == (3.0, 150.0)
    # Labels 0, 0, 1, 0 with 90, 90, 6, 90 of 100 selection draws.
    assert found.accuracy_under_noise == pytest.approx((0.9 * 3 + 0.06) / 4)
    assert found.unconverged == 8 / 4000
    assert (found.audits, found.disagreements) == (None, None)
    assert (found.method, found.guarantee, found.sigma, found.n) == (
        "standard",
        "standard",
        0.5,
        1000,
    )


def test_audits_are_added_up() -> None:
    records = [
        make_record(audited(0, drawn=400, disagreements=1), label=0),
        make_record(audited(1, drawn=300, disagreements=2), label=0),
        make_record(
            certificate(2, method="srs", guarantee="audited", prediction=None, radius=0.0), label=0
        ),
    ]
    found = summarize(records, radii=[0.0])
    assert (found.audits, found.disagreements) == (700, 3)
    assert found.guarantee == "audited"
    none_drawn = summarize(records[2:], radii=[0.0])
    assert (none_drawn.audits, none_drawn.disagreements) == (0, 0)


def test_one_record_without_guarantee_voids_the_runs() -> None:
    records = [*BY_HAND[:2], make_record(certificate(9, guarantee="none"), label=0)]
    found = summarize(records, radii=[0.0])
    assert found.guarantee == "none"
    assert found.high_probability_accuracy is None
    several = [BY_HAND[0], make_record(certificate(9, guarantee="audited"), label=0)]
    found = summarize([*several, BY_HAND[1]], radii=[0.0])
    assert found.guarantee == "audited + standard"
    assert found.guarantees == {"audited": 1, "standard": 2}


def test_against_numpy_on_random_records() -> None:
    generator = np.random.Generator(np.random.PCG64(5))
    count = 300
    radius = np.round(generator.gamma(2.0, 0.3, count), 2)  # rounded: ties with the grid occur
    label = generator.integers(0, 3, count)
    prediction = generator.integers(-1, 3, count)
    radius[prediction < 0] = 0.0
    records = [
        make_record(
            certificate(
                index, prediction=None if guess < 0 else int(guess), radius=float(radius[index])
            ),
            label=int(label[index]),
        )
        for index, guess in enumerate(prediction)
    ]
    grid = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 3.0]
    found = summarize(records, radii=grid)
    correct = prediction == label
    expected = [(correct & (radius >= r)).mean() for r in grid]
    np.testing.assert_allclose(found.certified_accuracy, expected, rtol=1e-12)
    acr = np.where(correct, radius, 0).mean()
    assert found.average_certified_radius == pytest.approx(acr, rel=1e-12)
    assert found.abstentions == int((prediction < 0).sum())


@pytest.mark.parametrize("images", [1, 30, 500, 10_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("rho", [0.001, 0.05])
def test_high_probability_accuracy_covers(images: int, alpha: float, rho: float) -> None:
    # All images are certified and each certificate is false with probability alpha, independently:
    # the true accuracy is 1 - false / images. Exact probability that the bound exceeds it:
    bound = high_probability_accuracy(images, images, alpha=alpha, rho=rho)
    false = np.arange(images + 1)
    missed = binom.pmf(false, images, alpha)[1 - false / images < bound - 1e-12].sum()
    assert missed <= rho
    assert bound <= 1.0


def published(mean: float, images: int, alpha: float, rho: float) -> float:
    """HighProbAccuracy.at_radius in analyze.py of locuslab/smoothing."""
    log = math.log(1 / rho)
    return mean - alpha - math.sqrt(alpha * (1 - alpha) * log / images) - log / (3 * images)


def test_published_form_misses_where_ours_does_not() -> None:
    images, alpha, rho = 100_000, 0.05, 0.001
    claimed_false = (1 - published(1.0, images, alpha, rho)) * images
    missed = binom.sf(math.floor(claimed_false), images, alpha)
    assert missed > 3 * rho, "the published form promises a probability of at most rho"
    ours = high_probability_accuracy(images, images, alpha=alpha, rho=rho)
    assert binom.sf(round((1 - ours) * images), images, alpha) <= rho


def test_ours_is_no_worse_than_the_published_form_at_the_fields_usual_numbers() -> None:
    for certified in (0, 100, 250, 500):
        ours = high_probability_accuracy(certified, 500, alpha=0.001, rho=0.001)
        assert ours >= published(certified / 500, 500, 0.001, 0.001)
    assert high_probability_accuracy(2, 500, alpha=0.001, rho=0.001) == 0.0


def test_default_radii_are_multiples_of_half_sigma() -> None:
    assert default_radii([0.5], 1.6) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
    assert default_radii([0.5], 0.0) == [0.0, 0.25, 0.5]
    assert default_radii([0.12], 0.3) == [0.0, 0.06, 0.12, 0.18, 0.24, 0.3]
    wide = default_radii([1.0, 0.12], 3.0)
    assert len(wide) <= 12
    assert wide[1] == pytest.approx(0.48)


def test_what_cannot_be_summarised() -> None:
    with pytest.raises(RunFolderError, match="first has no records yet"):
        summarize([], radii=[0.0], name="first")
    with pytest.raises(RunFolderError, match=r"mixes records of several sigma: \[0.25, 0.5\]"):
        summarize(
            [BY_HAND[0], make_record(certificate(9, sigma=0.25), label=0)], radii=[0.0], name="m"
        )
    for radii in ([], [-0.1], [float("nan")], [0.5, float("inf")]):
        with pytest.raises(ConfigurationError, match="radii must"):
            summarize(BY_HAND, radii=radii)
    with pytest.raises(ConfigurationError, match="rho must lie in"):
        summarize(BY_HAND, radii=[0.0], rho=0.0)


def test_radii_come_back_sorted_with_their_own_accuracies() -> None:
    found = summarize(BY_HAND, radii=[0.75, 0.0, 0.26, 0.0])
    assert found.radii == (0.0, 0.26, 0.75)
    assert found.certified_accuracy == (0.5, 0.25, 0.25)
