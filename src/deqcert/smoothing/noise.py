"""Keyed Gaussian noise: any draw can be made again, whatever the batch size, worker or order.

THEORY 7.2. Every block of `BLOCK` consecutive draws has its own counter-based generator, NumPy's
Philox, under a 128-bit key hashed from (seed, image index, stage, block). PyTorch's own CPU
generator would not do: it keeps only the low 32 bits of a seed, and its normals depend on the
layout and length of the request.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from dataclasses import dataclass

import numpy as np

from deqcert.errors import ConfigurationError

NOISE_STREAM = "numpy-philox-block16-float32-v1"
"""Name of the stream, recorded in certificates; a change of any detail below needs a new name."""

BLOCK = 16
"""Draws per key. Small blocks make an audit cheap, which regenerates single draws; large ones
would save the few microseconds that a new generator costs."""


def fresh_seed() -> int:
    """Return a 63-bit seed from the operating system, for runs that were given none."""
    return secrets.randbits(63)


def check_seed(seed: int) -> int:
    """Return `seed` if it is an integer >= 0 of any size.

    Raises:
        ConfigurationError: It is not.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ConfigurationError(f"seed must be an integer >= 0, but got {seed!r}")
    return int(seed)


def keyed_generator(seed: int, index: int, stage: str, block: int = 0) -> np.random.Generator:
    """Return the generator of one key.

    Args:
        seed: Seed of the run, >= 0, of any size; all its bits count.
        index: Index of the image, >= 0.
        stage: What the numbers are for; stages never share numbers.
        block: Index of the block of draws, >= 0.
    """
    text = f"deqcert noise 1|{seed}|{index}|{stage}|{block}".encode()
    key = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


@dataclass(frozen=True, kw_only=True)
class NoiseSource:
    """The noise of one image: N(0, sigma^2 I), independent between stages and between draws.

    Attributes:
        seed: Seed of the run.
        index: Index of the image.
        shape: Shape (channels, height, width) of one draw.
        sigma: Standard deviation, pixel units, > 0.
    """

    seed: int
    index: int
    shape: tuple[int, ...]
    sigma: float

    def draws(
        self,
        stage: str,
        indices: np.ndarray | range,  # (count,) ascending
    ) -> np.ndarray:  # (count, *shape) float32
        """Return the draws of `stage` with these indices, which must ascend."""
        wanted = np.asarray(indices, dtype=np.int64)
        noise = np.empty((len(wanted), *self.shape), dtype=np.float32)
        blocks = wanted // BLOCK
        edges = np.flatnonzero(np.diff(blocks, prepend=-1, append=-1))
        for first, last in itertools.pairwise(edges):
            block = int(blocks[first])
            self._fill(noise[first:last], stage, block, wanted[first:last] - block * BLOCK)
        noise *= np.float32(self.sigma)
        return noise

    def _fill(
        self,
        out: np.ndarray,  # (count, *shape) float32
        stage: str,
        block: int,
        places: np.ndarray,  # (count,) ascending, in [0, BLOCK)
    ) -> None:
        """Write some draws of one block; a generator's numbers do not depend on how many follow."""
        generator = keyed_generator(self.seed, self.index, stage, block)
        most = int(places[-1]) + 1
        if np.array_equal(places, np.arange(most)):
            generator.standard_normal(dtype=np.float32, out=out)
        else:
            out[:] = generator.standard_normal((most, *self.shape), dtype=np.float32)[places]

    def choose(
        self,
        stage: str,
        population: np.ndarray,  # (size,)
        count: int,
    ) -> np.ndarray:  # (count,) ascending
        """Return `count` members of `population`, uniformly without replacement.

        The randomness is that of `stage` alone, hence independent of the noise of every other
        stage: what Theorem A asks of an audit (THEORY 3).
        """
        generator = keyed_generator(self.seed, self.index, stage)
        return np.sort(generator.choice(population, size=count, replace=False, shuffle=False))
