"""Keyed Gaussian noise: any draw can be made again, whatever the batch size, worker or order.

THEORY 7.2. A `NoiseSource` is the noise of one image; its numbers come from a named stream. Here is
the one made on the host: every block of `BLOCK` consecutive draws has its own counter-based
generator, NumPy's Philox, under a 128-bit key hashed from (seed, image index, stage, block).
PyTorch's own CPU generator would not do: it keeps only the low 32 bits of a seed, and its normals
depend on the layout and length of the request. The stream made on a GPU is in `streams`.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from deqcert.errors import ConfigurationError

NOISE_STREAM = "numpy-philox-block16-float32-v1"
"""Name of the stream, recorded in certificates; a change of any detail of it needs a new name."""

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
    return _Rekeyed().at(seed, index, stage, block)


class _Rekeyed:
    """A generator that is given one key after the other: a new one each time costs more."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=0)
        self._fresh = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, seed: int, index: int, stage: str, block: int) -> np.random.Generator:
        """Return the generator as it begins under a key; it is the same object every time."""
        key = hashed(f"deqcert noise 1|{seed}|{index}|{stage}|{block}")
        self._fresh["state"]["key"] = np.frombuffer(key, dtype="<u8")
        self._bits.state = self._fresh
        return self._generator


def hashed(fields: str) -> bytes:
    """Return 16 bytes that depend on every bit of `fields`."""
    return hashlib.blake2b(fields.encode(), digest_size=16).digest()


@dataclass(frozen=True, kw_only=True)
class NoiseKey:
    """What the numbers of one image follow from, beside the stream, the stage and the draw.

    Attributes:
        seed: Seed of the run, >= 0.
        index: Index of the image, >= 0.
        shape: Shape (channels, height, width) of one draw.
    """

    seed: int
    index: int
    shape: tuple[int, ...]


class Stream(Protocol):
    """Where numbers come from; it holds nothing but settings, so that it may be sent to workers."""

    @property
    def name(self) -> str:
        """Its name in certificates."""
        ...

    @property
    def on_host(self) -> bool:
        """Whether numbers cost the host time that is worth spending while something else runs."""
        ...

    def placed(self, image: Tensor) -> Tensor:
        """Return a float32 CPU tensor where the numbers are made."""
        ...

    def normals(
        self,
        key: NoiseKey,
        stage: str,
        draws: np.ndarray,  # (count,) int64, ascending
    ) -> Tensor:  # (count, *key.shape) float32
        """Return the standard normal numbers of these draws."""
        ...


@dataclass(frozen=True)
class HostStream:
    """The stream ``NOISE_STREAM``: NumPy's Philox and ziggurat, on the host."""

    @property
    def name(self) -> str:
        """Its name in certificates."""
        return NOISE_STREAM

    @property
    def on_host(self) -> bool:
        """True: a thread of its own may make the numbers."""
        return True

    def placed(self, image: Tensor) -> Tensor:
        """Return the tensor itself."""
        return image

    def normals(
        self,
        key: NoiseKey,
        stage: str,
        draws: np.ndarray,  # (count,) int64, ascending
    ) -> Tensor:  # (count, *key.shape) float32, on the CPU
        """Return the standard normal numbers of these draws."""
        noise = np.empty((len(draws), *key.shape), dtype=np.float32)
        blocks = draws // BLOCK
        edges = np.flatnonzero(np.diff(blocks, prepend=-1, append=-1))
        keyed = _Rekeyed()  # this call's own: several threads make noise
        for first, last in itertools.pairwise(edges.tolist()):
            block = int(blocks[first])
            generator = keyed.at(key.seed, key.index, stage, block)
            most = int(draws[last - 1]) - block * BLOCK + 1
            # A generator's numbers do not depend on how many follow.
            if last - first == most:
                generator.standard_normal(dtype=np.float32, out=noise[first:last])
            else:
                numbers = generator.standard_normal((most, *key.shape), dtype=np.float32)
                noise[first:last] = numbers[draws[first:last] - block * BLOCK]
        return torch.from_numpy(noise)


@dataclass(frozen=True, kw_only=True)
class NoiseSource:
    """The noise of one image: N(0, sigma^2 I), independent between stages and between draws.

    Attributes:
        seed: Seed of the run.
        index: Index of the image.
        shape: Shape (channels, height, width) of one draw.
        sigma: Standard deviation, pixel units, > 0.
        stream: Where the numbers come from.
    """

    seed: int
    index: int
    shape: tuple[int, ...]
    sigma: float
    stream: Stream = HostStream()

    def draws(
        self,
        stage: str,
        indices: np.ndarray | range,  # (count,) ascending
    ) -> Tensor:  # (count, *shape) float32, where the stream makes it
        """Return the draws of `stage` with these indices, which must ascend."""
        key = NoiseKey(seed=self.seed, index=self.index, shape=self.shape)
        noise = self.stream.normals(key, stage, np.asarray(indices, dtype=np.int64))
        values = _values(noise)
        values *= float(np.float32(self.sigma))
        return noise

    def noisy(
        self,
        image: Tensor,  # (*shape) float32, as `stream.placed`
        stage: str,
        indices: np.ndarray | range,  # (count,) ascending
    ) -> Tensor:  # (count, *shape) float32, where the stream makes it
        """Return noisy copies; never clipped: the theorem is about x + e as it is."""
        noise = self.draws(stage, indices)
        values = _values(noise)
        values += _values(image)
        return noise

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


def _values(numbers: Tensor) -> np.ndarray | Tensor:
    """Return what to compute with, of the same memory: on the CPU NumPy's array.

    PyTorch's operations would start a team of threads of its own for the thread that makes noise
    ahead.
    """
    return numbers.numpy() if numbers.device.type == "cpu" else numbers
