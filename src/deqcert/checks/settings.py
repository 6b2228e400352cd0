"""Whether the configuration in ``run.json`` is one that a run can have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import eq
from typing import Any

from deqcert.certificate import DETERMINISTIC, NORMS
from deqcert.checks.problems import Place, Problem
from deqcert.checks.schema import LARGEST, Rule, is_digest, is_text, is_whole
from deqcert.data import SOURCES
from deqcert.deterministic import IntervalSettings, LipschitzSettings
from deqcert.deterministic.interval import ALL
from deqcert.deterministic.subject import EXACT
from deqcert.errors import ConfigurationError, DeqcertError
from deqcert.results.run_folder import RUN
from deqcert.smoothing import NOISE_STREAMS, Settings
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
}
SINCE: dict[str, Rule] = {
    "architecture": (lambda settings: isinstance(settings, dict) and len(settings) > 0, "settings"),
}
"""What the first runs did not record."""
NOISE: dict[str, Rule] = {
    "noise": (lambda name: name in NOISE_STREAMS, " or ".join(NOISE_STREAMS)),
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
CERTAIN = {"lipschitz": LipschitzSettings, "interval": IntervalSettings}
"""Settings of the methods that need no noise."""
_CERTAIN_TYPES: dict[str, tuple[type, ...]] = {
    "solver": (str,),
    "largest": _NUMBERS,
    "resolution": _NUMBERS,
    "steps": (int,),
    "domain": (str,),
}


def check_configuration(configuration: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield settings that are missing, that no run can have, or that contradict each other."""
    if is_deterministic(configuration):
        settings = CERTAIN[configuration["method"]]
        rules = {**IDENTITY, **_claim(configuration["method"])}
        build: Callable[[dict[str, Any]], object] = partial(_as_certain, settings)
        names = tuple(settings.__dataclass_fields__)
    else:
        rules, build, names = {**IDENTITY, **NOISE}, _as_settings, SETTINGS
    place = Place(RUN)
    missing = [name for name in dict.fromkeys((*names, *rules)) if name not in configuration]
    for name in missing:
        why = "without it the run cannot be repeated"
        yield place.problem(f"configuration.{name}", "(absent)", "a value", why)
    for name, (test, rule) in {**rules, **SINCE}.items():
        if name in configuration and not test(configuration[name]):
            why = "a run has no such setting, so it cannot be repeated"
            yield place.problem(f"configuration.{name}", configuration[name], rule, why)
    if missing:
        return
    try:
        build({name: configuration[name] for name in names})
    except DeqcertError as error:
        why = "no run can have these settings"
        yield place.problem("configuration", "(settings)", str(error), why)
    yield from _check_source(place, configuration)


def is_deterministic(configuration: Mapping[str, Any]) -> bool:
    """Whether a run says that its certificates need no noise."""
    method = configuration.get("method")
    return isinstance(method, str) and method in CERTAIN


def _claim(method: str) -> dict[str, Rule]:
    """Return what a deterministic run must say it claims."""
    claim = {"norm": NORMS[method], "guarantee": DETERMINISTIC, "reference": EXACT}
    if method == "lipschitz":
        claim["domain"] = ALL  # of an interval run it is a setting
    return {name: (partial(eq, value), value) for name, value in claim.items()}


def _as_certain(kind: Any, settings: Mapping[str, Any]) -> object:
    """Return the settings of a deterministic run, after types and sizes.

    Raises:
        DeqcertError: They are none.
    """
    for name, value in settings.items():
        if type(value) not in _CERTAIN_TYPES[name]:
            raise ConfigurationError(f"{name} cannot be {value!r}")
        if type(value) in _NUMBERS and value > LARGEST:
            raise ConfigurationError(f"{name} must be at most {LARGEST}, but got {value}")
    return kind(**settings)


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
