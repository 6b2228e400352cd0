"""Pieces of work: small values that any worker turns into the same result."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from deqcert.certificate import Certificate, DeterministicCertificate
from deqcert.runners.base import AnyCertifier, DeterministicCertifier
from deqcert.smoothing import Certifier, Labels, Sampler, Serialization
from deqcert.smoothing.sampling import Progress
from deqcert.smoothing.spent import Spent


class Task(Protocol):
    """A piece of work on one image, or on some."""

    @property
    def index(self) -> int:
        """The image, or the first of them."""
        ...

    def run(self, certifier: Any, progress: Progress) -> Any:
        """Do it; what comes of it depends on certifier and task alone, times aside."""
        ...


@dataclass(frozen=True)
class Picture:
    """An image under its noise.

    Attributes:
        index: Index in the data set.
        seed: Seed of the noise.
        pixels: float32 in [0, 1]. shape: (C, H, W)
    """

    index: int
    seed: int
    pixels: np.ndarray

    def sampler(self, certifier: Certifier, progress: Progress) -> Sampler:
        """Return what labels its draws here."""
        image = torch.from_numpy(self.pixels.copy())  # what came by wire is read-only
        return certifier.sampler(image, seed=self.seed, index=self.index, progress=progress)


@dataclass(frozen=True)
class CertifyImage:
    """Certify one image whole."""

    picture: Picture

    @property
    def index(self) -> int:
        """The image."""
        return self.picture.index

    def run(self, certifier: Certifier, progress: Progress) -> list[Certificate]:
        """Return its certificate."""
        return [certifier.certificate(self.picture.sampler(certifier, progress))]


@dataclass(frozen=True)
class CertifyBatch:
    """Certify a small batch of images without noise.

    Attributes:
        indices: Their indices in the data set.
        pixels: float32 in [0, 1]. shape: (B, C, H, W)
    """

    indices: Sequence[int]
    pixels: np.ndarray

    @property
    def index(self) -> int:
        """The first image."""
        return self.indices[0]

    def run(
        self, certifier: DeterministicCertifier, progress: Progress
    ) -> list[DeterministicCertificate]:
        """Return their certificates."""
        progress("certify", 0, len(self.indices))
        return certifier.certify(torch.from_numpy(self.pixels.copy()), indices=self.indices)


@dataclass(frozen=True)
class ColdDraws:
    """Label some draws of an image cold.

    Attributes:
        picture: The image.
        stage: Stage of the noise.
        draws: Indices of the draws, ascending.
        shown_as: What progress is reported as.
    """

    picture: Picture
    stage: str
    draws: range | np.ndarray
    shown_as: str

    @property
    def index(self) -> int:
        """The image."""
        return self.picture.index

    def run(self, certifier: Certifier, progress: Progress) -> tuple[Labels, Spent]:
        """Return the labels, and what they cost."""
        spent = Spent()
        sampler = self.picture.sampler(certifier, progress)
        return sampler.cold(self.stage, self.draws, spent, shown_as=self.shown_as), spent


@dataclass(frozen=True)
class ColdCount:
    """Count the clear cold labels of some draws of an image.

    Attributes:
        picture: The image.
        stage: Stage of the noise.
        draws: Which draws.
    """

    picture: Picture
    stage: str
    draws: range

    @property
    def index(self) -> int:
        """The image."""
        return self.picture.index

    def run(self, certifier: Certifier, progress: Progress) -> tuple[np.ndarray, Spent]:
        """Return the counts per class, and what they cost."""
        spent = Spent()
        sampler = self.picture.sampler(certifier, progress)
        first, n = self.draws.start, len(self.draws)
        return sampler.cold_counts(self.stage, n, spent, first=first), spent


@dataclass(frozen=True)
class SerialDraws:
    """Label the draws of some chains of an image, each chain whole.

    Attributes:
        picture: The image.
        stage: Stage of the noise.
        n: Draws of all chains.
        how: How labels are made.
        chains: Which chains.
        proved: Whether labels are proved.
        fit: What `FitStart` returned, for the start ``linear``.
        shown_as: What progress is reported as.
    """

    picture: Picture
    stage: str
    n: int
    how: Serialization
    chains: range
    proved: bool
    fit: bytes | None
    shown_as: str

    @property
    def index(self) -> int:
        """The image."""
        return self.picture.index

    def run(self, certifier: Certifier, progress: Progress) -> tuple[np.ndarray, Spent]:
        """Return the int16 labels of these draws, in order, and what they cost."""
        spent = Spent()
        sampler = self.picture.sampler(certifier, progress)
        sampler.fit = None if self.fit is None else pickle.loads(self.fit)
        labels = sampler.serialized(
            self.stage,
            self.n,
            self.how,
            spent,
            shown_as=self.shown_as,
            proved=self.proved,
            chains=self.chains,
        )
        return labels, spent


@dataclass(frozen=True)
class FitStart:
    """Fit the start ``linear`` of an image."""

    picture: Picture
    how: Serialization

    @property
    def index(self) -> int:
        """The image."""
        return self.picture.index

    def run(self, certifier: Certifier, progress: Progress) -> tuple[bytes, Spent]:
        """Return the fit, packed: it holds tensors on the worker's device, and passes through."""
        spent = Spent()
        progress("fit", 0, 1)
        sampler = self.picture.sampler(certifier, progress)
        sampler.prepare(self.how, spent)
        return pickle.dumps(sampler.fit), spent


def images_of(certifier: AnyCertifier) -> int:
    """Return how many images are one piece of work."""
    return 1 if isinstance(certifier, Certifier) else certifier.subject.batch_size
