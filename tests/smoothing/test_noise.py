"""Noise streams: regenerable draw by draw, and different wherever the key differs (THEORY 7.2)."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from scipy import stats

from deqcert.errors import ConfigurationError
from deqcert.smoothing import NOISE_STREAMS
from deqcert.smoothing.noise import BLOCK, NoiseSource, Stream, check_seed, fresh_seed
from deqcert.smoothing.streams import make_stream

SHAPE = (3, 4, 4)


@pytest.fixture(params=NOISE_STREAMS)
def stream(request: pytest.FixtureRequest) -> Stream:
    return make_stream(request.param, torch.device("cpu"))


def source(stream: Stream, seed: int = 5, index: int = 0, sigma: float = 0.5) -> NoiseSource:
    return NoiseSource(seed=seed, index=index, shape=SHAPE, sigma=sigma, stream=stream)


def test_any_draw_can_be_made_again_alone_and_in_any_batch(stream: Stream):
    whole = source(stream).draws("estimation", range(101)).numpy()
    for size in (1, 7, BLOCK, 40):
        parts = [
            source(stream).draws("estimation", range(low, min(low + size, 101)))
            for low in range(0, 101, size)
        ]
        assert np.array_equal(np.concatenate(parts), whole)
    scattered = np.array([0, 3, 15, 16, 17, 64, 99, 100])
    assert np.array_equal(source(stream).draws("estimation", scattered), whole[scattered])
    assert source(stream).draws("estimation", range(0)).shape == (0, *SHAPE)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 5 + 2**32},  # PyTorch's CPU generator cannot tell these from 5
        {"seed": 5 + 2**64},
        {"seed": 5 + 2**128},
        {"index": 1},
    ],
)
def test_every_bit_of_the_key_counts(stream: Stream, other: dict[str, int]):
    first = source(stream).draws("estimation", range(BLOCK))
    second = source(stream, **other).draws("estimation", range(BLOCK))
    assert not np.isin(first, second).any()


def test_stages_and_blocks_never_share_numbers(stream: Stream):
    noise = source(stream)
    blocks = [noise.draws(stage, range(3 * BLOCK)) for stage in ("selection", "estimation")]
    numbers = np.concatenate([block.ravel() for block in blocks])
    # 4,608 float32 normals: a chance repetition is likely, shared streams repeat thousands.
    assert len(np.unique(numbers)) > 0.99 * len(numbers)


def test_the_numbers_are_standard_normal_times_sigma(stream: Stream):
    noise = source(stream, sigma=0.25).draws("estimation", range(4000)).numpy()
    assert noise.dtype == np.float32
    assert stats.kstest(noise.ravel()[::7] / 0.25, "norm").pvalue > 1e-3
    draws = noise.reshape(4000, -1).astype(np.float64) / 0.25
    covariance = draws.T @ draws / 4000
    assert np.abs(covariance - np.eye(48)).max() < 6 / np.sqrt(4000)


def test_noisy_copies_are_image_plus_noise(stream: Stream):
    image = torch.rand(SHAPE)
    noise = source(stream).draws("estimation", range(40))
    noisy = source(stream).noisy(stream.placed(image), "estimation", range(40))
    assert torch.equal(noisy, image + noise)


def test_the_named_stream_is_what_it_was():
    """The certificate names the stream, so its numbers may never change under that name."""
    noise = NoiseSource(seed=0, index=0, shape=(1, 2, 2), sigma=1.0).draws("estimation", range(32))
    key = hashlib.blake2b(b"deqcert noise 1|0|0|estimation|1", digest_size=16).digest()
    philox = np.random.Philox(key=np.frombuffer(key, dtype="<u8"))
    second = np.random.Generator(philox).standard_normal((16, 1, 2, 2), dtype=np.float32)
    assert np.array_equal(noise[16:], second)


def test_the_audit_is_a_uniform_choice_without_replacement(stream: Stream):
    population = np.arange(100, 140)
    seen = np.zeros(140)
    for index in range(4000):
        chosen = source(stream, index=index).choose("audit", population, 10)
        assert len(set(chosen)) == 10
        assert np.all(np.diff(chosen) > 0)
        seen[chosen] += 1
    assert seen[:100].sum() == 0
    # 39 degrees of freedom; draws without replacement spread less than independent ones.
    assert stats.chisquare(seen[100:]).pvalue > 1e-3
    assert np.array_equal(source(stream).choose("audit", population, 40), population)


def test_seeds_are_checked_and_fresh_ones_differ():
    assert check_seed(np.int64(3)) == 3
    assert len({fresh_seed() for _ in range(20)}) == 20
    for bad in (-1, 1.5, "1", True):
        with pytest.raises(ConfigurationError, match="seed must be"):
            check_seed(bad)  # pyright: ignore[reportArgumentType]
