"""The stream made on the device: Philox as published, normals as documented, nothing correlated."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from deqcert.errors import ConfigurationError
from deqcert.smoothing.noise import NoiseKey
from deqcert.smoothing.philox import WORD, normals, philox4x32
from deqcert.smoothing.streams import DEVICE_STREAM, DeviceStream

HERE = DeviceStream(torch.device("cpu"))
PI = "243f6a88 85a308d3 13198a2e 03707344"


def numbers(
    draws: range | np.ndarray,
    *,
    size: int = 48,
    seed: int = 7,
    index: int = 3,
    stage: str = "estimation",
) -> np.ndarray:  # (draws, size) float32
    key = NoiseKey(seed=seed, index=index, shape=(1, 1, size))
    return HERE.normals(key, stage, np.asarray(draws, np.int64)).flatten(1).numpy()


def words_at(counter: str, key: str) -> str:
    c, k = ([int(word, 16) for word in text.split()] for text in (counter, key))
    found = philox4x32(torch.tensor(c[:1]), torch.tensor(c[1:2]), (c[2], c[3]), (k[0], k[1]))
    return " ".join(f"{int(word) % WORD:08x}" for word in found)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # kat_vectors of Random123 (D. E. Shaw Research), philox4x32 with 10 rounds
        (" ".join(["0"] * 4), "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (" ".join(["ffffffff"] * 4), "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (PI, "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_words_are_those_of_random123(counter: str, key: str, words: str):
    assert words_at(counter, key) == words


def plain_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 as in the paper's section 3.3, in whole numbers without limit."""
    for _ in range(10):
        one, two = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (two >> 32) ^ counter[1] ^ key[0],
            two % WORD,
            (one >> 32) ^ counter[3] ^ key[1],
            one % WORD,
        ]
        key = [(key[0] + 0x9E3779B9) % WORD, (key[1] + 0xBB67AE85) % WORD]
    return counter


def plain_number(draw: int, position: int, size: int, seed: int, index: int, stage: str) -> float:
    """One number as the docstrings say, without PyTorch."""
    text = f"deqcert noise {DEVICE_STREAM}|{seed}|{index}|{stage}"
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    one, two, three, four = (int.from_bytes(digest[i : i + 4], "little") for i in (0, 4, 8, 12))
    groups = -(-size // 4)
    place, group = divmod(position, groups)
    words = plain_philox([group, draw, three, four], [one, two])
    w, v = ((word + 2**31) % WORD - 2**31 for word in words[2 * (place % 2) :][:2])
    radius = math.sqrt(-2.0 * math.log((w + 2**31 + 0.5) / WORD))
    angle = 2.0 * math.pi * (v + 0.5) / WORD
    return radius * (math.cos(angle) if place < 2 else math.sin(angle))


@pytest.mark.parametrize("size", [1, 35, 48])
def test_the_named_stream_is_what_it_was(size: int):
    """The certificate names the stream, so its numbers may never change under that name."""
    key = {"seed": 2**70 + 1, "index": 12, "stage": "selection"}
    draws = [0, 1, 5, 2**31, 2**32 - 1]
    found = numbers(np.array(draws), size=size, **key)
    wanted = [[plain_number(d, p, size, **key) for p in range(size)] for d in draws]
    # Another library's logarithm may differ in its last bit, hence rarely that of float32.
    np.testing.assert_array_max_ulp(found, np.array(wanted, np.float32), maxulp=1)
    assert (found != np.array(wanted, np.float32)).mean() < 0.01


def test_a_draw_is_the_same_in_any_batch_order_and_number_of_threads():
    # More than is made at once, in which no vector of the processor ends where a draw does.
    whole = numbers(range(4000), size=35)
    order = np.random.default_rng(0).permutation(4000)
    assert np.array_equal(numbers(order, size=35), whole[order])
    for draw in (0, 1, 1871, 1872, 1873, 3999):
        assert np.array_equal(numbers(range(draw, draw + 1), size=35), whole[draw : draw + 1])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert np.array_equal(numbers(range(4000), size=35), whole)
    finally:
        torch.set_num_threads(before)


def test_shapes_larger_than_what_is_made_at_once():
    size = 3 * 160 * 160
    some = numbers(np.array([4, 9]), size=size)
    assert np.array_equal(some[1:], numbers(np.array([9]), size=size))
    assert len(np.unique(some)) > 0.99 * some.size


def test_draws_beyond_32_bits_are_refused():
    numbers(np.array([2**32 - 1]))
    with pytest.raises(ConfigurationError, match=r"2\^32 draws"):
        numbers(np.array([2**32]))


def words_of(*values: int) -> Tensor:  # (1, len(values)) int32
    return torch.tensor([values], dtype=torch.int32)


def test_the_ends_of_the_grids():
    lowest, highest = -(2**31), 2**31 - 1
    radius = words_of(lowest, lowest + 1, highest, lowest, lowest, highest, highest)
    angle = words_of(0, 0, 0, 2**30, 2**30 - 1, lowest, 2**30)
    cosines, _, sines, _ = normals((radius, angle, radius, angle))[0].double()
    largest = math.sqrt(66 * math.log(2))
    assert cosines[0] == pytest.approx(largest, abs=1e-6) == 6.7637056
    assert cosines[0] - cosines[1] == pytest.approx(0.1644, abs=1e-4)
    assert cosines[2] == pytest.approx(2.0**-16, rel=1e-6)  # sqrt(2 / 2^33)
    both = torch.cat([cosines, sines])
    assert both.isfinite().all()
    assert (both != 0).all()
    assert float(both.abs().max()) == pytest.approx(largest, abs=1e-6)


def test_numbers_are_rounded_once():
    """Against the processor's extended precision, where it has one: the nearest float32."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(-(2**31), 2**31, (2, 1, 200_000), generator=generator, dtype=torch.int32)
    found = normals((words[0], words[1], words[0], words[1]))[0].numpy()
    w, v = words[:, 0].numpy().astype(np.longdouble)
    pi = np.longdouble("3.14159265358979323846264338327950288")
    radius = np.sqrt(-2 * np.log((w + 2**31 + 0.5) / WORD))
    for place, function in ((0, np.cos), (2, np.sin)):
        exact = radius * function(2 * pi * (v + np.longdouble(0.5)) / WORD)
        assert np.array_equal(found[place], exact.astype(np.float32))


def p_values(z: np.ndarray) -> Iterator[float]:  # z: (draws, size)
    """Yield p-values of independent standard normal numbers: law, tails, sums, neighbours."""
    rows, size = z.shape
    z = z.astype(np.float64)
    random = np.random.default_rng(1)
    yield stats.kstest(z.ravel()[:: max(1, z.size // 500_000)], "norm").pvalue
    for bound in (-4.5, -4.0, -3.0, 3.0, 4.0, 4.5):
        beyond = int((z * np.sign(bound) > abs(bound)).sum())
        yield stats.binomtest(beyond, z.size, stats.norm.sf(abs(bound))).pvalue
    yield stats.kstest(z.sum(1) / np.sqrt(size), "norm").pvalue
    yield stats.kstest(z.sum(0) / np.sqrt(rows), "norm").pvalue
    direction = random.standard_normal(size)
    yield stats.kstest(z @ direction / np.linalg.norm(direction), "norm").pvalue
    yield stats.kstest(np.square(z).sum(1), stats.chi2(size).cdf).pvalue
    yield stats.kstest(np.square(z).sum(0), stats.chi2(rows).cdf).pvalue
    groups = size // 4
    spread = (np.square(z) - 1) / np.sqrt(2)
    for lag in (1, groups, 2 * groups, 3 * groups):
        yield uncorrelated(z[:, lag:], z[:, :-lag])
        yield uncorrelated(spread[:, lag:], spread[:, :-lag])
    for lag in (1, 2, 16):
        yield uncorrelated(z[lag:], z[:-lag])
        yield uncorrelated(spread[lag:], spread[:-lag])


def uncorrelated(one: np.ndarray, other: np.ndarray) -> float:
    """Return the p-value of a sum of products of numbers of mean 0 and variance 1."""
    return 2 * stats.norm.sf(abs((one * other).sum()) / np.sqrt(one.size))


LAYOUTS = {
    "draws": lambda: numbers(range(2000), size=512),
    "images": lambda: np.concatenate([numbers(range(1), index=i, size=512) for i in range(2000)]),
    "seeds": lambda: np.concatenate([numbers(range(1), seed=i, size=512) for i in range(2000)]),
    "wide": lambda: numbers(range(40), size=32_768),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_numbers_are_normal_and_independent(name: str):
    found = list(p_values(LAYOUTS[name]()))
    assert min(found) > 1e-3, found


def spoiled(z: np.ndarray) -> dict[str, np.ndarray]:
    """Return numbers that are not what they should be, each by a little."""
    shared, before = z[:, :1], np.roll(z, 1, axis=0)
    both = z.copy()
    both[:, 256:] = z[:, :256] * np.sign(z[:, 256:])  # uncorrelated, but of equal size
    return {
        "a shift shared by a draw": np.sqrt(0.99) * z + 0.1 * shared,
        "a trace of the draw before": np.sqrt(1 - 0.02**2) * z + 0.02 * before,
        "sines as large as cosines": both,
        "no tails": np.clip(z, -3.5, 3.5),
        "too narrow": 0.995 * z,
    }


@pytest.mark.parametrize("name", spoiled(np.ones((2, 512))))
def test_the_tests_see_what_they_should(name: str):
    assert min(p_values(spoiled(numbers(range(2000), size=512))[name])) < 1e-8


def test_keys_that_differ_anywhere_give_other_numbers():
    first = numbers(range(20))
    others = [
        numbers(range(20), seed=7 + 2**32),
        numbers(range(20), seed=7 + 2**64),
        numbers(range(20), seed=7 + 2**128),
        numbers(range(20), index=4),
        numbers(range(20), stage="selection"),
        numbers(range(20, 40)),
    ]
    every = np.concatenate([first, *others])
    assert len(np.unique(every)) > 0.995 * every.size
    for other in others:
        assert uncorrelated(first.astype(float), other.astype(float)) > 1e-3
