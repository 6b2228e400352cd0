"""Randomized smoothing of equilibrium models: noise, sampling, audit, certifier."""

from deqcert.smoothing.certifier import Certifier
from deqcert.smoothing.chains import Serialization
from deqcert.smoothing.classifier import NO_CLASS, Labels, ReferenceClassifier
from deqcert.smoothing.majority import majority_class
from deqcert.smoothing.noise import NOISE_STREAM, NoiseSource, fresh_seed
from deqcert.smoothing.sampling import Sampler
from deqcert.smoothing.settings import Settings
from deqcert.smoothing.streams import NOISE_STREAMS

__all__ = [
    "NOISE_STREAM",
    "NOISE_STREAMS",
    "NO_CLASS",
    "Certifier",
    "Labels",
    "NoiseSource",
    "ReferenceClassifier",
    "Sampler",
    "Serialization",
    "Settings",
    "fresh_seed",
    "majority_class",
]
