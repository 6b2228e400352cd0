"""Whether the configuration in ``run.json`` is one that a run can have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deqcert.checks.problems import Place, Problem
from deqcert.checks.schema import LARGEST, Rule, is_digest, is_text, is_whole
from deqcert.data import SOURCES
from deqcert.errors import ConfigurationError, DeqcertError
from deqcert.results.run_folder import RUN
from deqcert.smoothing import NOISE_STREAM, Settings
from deqcert.smoothing.classifier import precision_name
from deqcert.solvers import SolverSpec
from deqcert.stats.feasibility import checked_audit

SETTINGS = tuple(Settings.__dataclass_fields__)
IDENTITY: dict[str, Rule] = {
    "weights_digest": (is_digest, "64 hexadecimal digits"),
    "data": (is_text, "the name of a data set"),
    "split": (is_text, "the name of a split"),
    "data_digest": (is_text, "a digest"),
    "class_names": (
        lambda names: isinstance(names, list) and len(names) >= 2 and all(map(is_text, names)),
        "a name for each of at least 2 classes",
    ),
    "skip": (lambda skip: is_whole(skip) and skip >= 1, "a whole number >= 1"),
    "noise": (lambda name: name == NOISE_STREAM, NOISE_STREAM),
    "seed": (is_whole, "a whole number >= 0"),
}
_WIDEST = 1e6  # of a noise whose squares float32 can still hold
_NUMBERS = (int, float)
_TYPES: dict[str, tuple[type, ...]] = {
    "sigma": _NUMBERS,
    "alpha": _NUMBERS,
    "n": (int,),
    "n0": (int,),
    "chains": (int,),
    "method": (str,),
    "reference": (str,),
    "serial": (str,),
    "warmup": (str,),
    "start": (str,),
    "dtype": (str,),
    "audit": (int, float, str),
}


def check_configuration(configuration: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield settings that are missing, that no run can have, or that contradict each other."""
    place = Place(RUN)
    missing = [name for name in (*SETTINGS, *IDENTITY) if name not in configuration]
    for name in missing:
        why = "without it the run cannot be repeated"
        yield place.problem(f"configuration.{name}", "(absent)", "a value", why)
    for name, (test, rule) in IDENTITY.items():
        if name not in missing and not test(configuration[name]):
            why = "a run has no such setting, so it cannot be repeated"
            yield place.problem(f"configuration.{name}", configuration[name], rule, why)
    if missing:
        return
    try:
        _as_settings({name: configuration[name] for name in SETTINGS})
    except DeqcertError as error:
        why = "no run can have these settings"
        yield place.problem("configuration", "(settings)", str(error), why)
    yield from _check_source(place, configuration)


def _as_settings(settings: Mapping[str, Any]) -> Settings:
    """Return the settings, after types and sizes: a forged n must not take all memory.

    Raises:
        DeqcertError: They are none.
    """
    for name, value in settings.items():
        if name in _TYPES and type(value) not in _TYPES[name]:
            raise ConfigurationError(f"{name} cannot be {value!r}")
        if type(value) is int and value > LARGEST:
            raise ConfigurationError(f"{name} must be at most {LARGEST}, but got {value}")
    if settings["sigma"] > _WIDEST:
        raise ConfigurationError(f"sigma must be at most {_WIDEST:g}, but got {settings['sigma']}")
    precision_name(settings["dtype"])
    for name in ("reference", "serial", "warmup"):
        SolverSpec.parse(settings[name])
    checked_audit(settings["audit"], settings["n"])
    return Settings(**settings)


def _check_source(place: Place, configuration: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a split or digest that a data set of that name does not have."""
    source = SOURCES.get(configuration["data"]) if is_text(configuration["data"]) else None
    split = configuration["split"]
    if source is None or not is_text(split):
        return
    if split not in source.splits:
        why = "the data set has no such split"
        rule = f"one of {', '.join(source.splits)}"
        yield place.problem("configuration.split", split, rule, why)
        return
    known = source.digests.get(source.splits[split])
    if known is not None:
        why = "these are not the images and labels of the data set that is named"
        digest = configuration["data_digest"]
        yield from place.expect("configuration.data_digest", digest, known, why)
