"""The numbers of a run, as pure functions of its records.

Certified accuracy at radius r is the share of all images whose prediction is correct and certified
to at least r; an abstention is wrong at every radius (Cohen, Rosenfeld and Kolter 2019, section 4).
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deqcert.certificate import DETERMINISTIC
from deqcert.errors import ConfigurationError, RunFolderError
from deqcert.results.cohen import PUBLISHED

Record = Mapping[str, Any]
RHO = 0.001
L2, LINF = "L2", "Linf"
LEVELS = 255
"""Levels of a pixel above 0: Linf radii are usually given in units of one."""
NO_DRAWS: Mapping[str, Any] = {
    "sigma": None,
    "n": None,
    "alpha": 0.0,
    "accuracy_under_noise": None,
    "audits": None,
    "disagreements": None,
    "unconverged": None,
}
"""What takes the place of the numbers that come from draws where there are none."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a report shows of one run.

    Attributes:
        name: How the report calls the run.
        method: ``standard``, ``srs``, ``proved``, ``srs-paper``, ``lipschitz`` or ``interval``;
            ``published`` for a log of others.
        guarantee: The guarantee of all records, joined where several occur (a plan may choose
            independent solves for an image); ``none`` if any record has none; ``published`` for a
            log of others, of which nothing is checked.
        guarantees: Images by guarantee.
        norm: ``L2`` or ``Linf``; radii of the two are never to be mixed.
        sigma: Noise level, pixel units; None, as all that is about draws, where there are none
            (deterministic certificates).
        n: Estimation draws per image.
        alpha: Failure probability of one certificate; 0 for deterministic ones, None where a log of
            others does not tell it.
        images: Images with a record.
        radii: Radii of the two accuracies below, pixel units.
        certified_accuracy: Share of images certified correctly at each radius, in [0, 1].
        high_probability_accuracy: Lower bound of the share whose claim is true, see the function
            of that name; None without a guarantee of ours, certain for deterministic certificates.
        rho: Failure probability of those lower bounds, each.
        accuracy_under_noise: Mean share of selection draws with the true label (the base
            classifier under noise).
        abstentions: Images without a certified class.
        average_certified_radius: Mean over all images of the radius, 0 where not correct.
        largest_radius: Largest radius of a correct prediction.
        cell_evaluations: Mean per image; None where a log of others does not tell it.
        seconds: Mean wall-clock seconds per image, likewise.
        audits: Audited draws in all, None where the method has no audit.
        disagreements: Audited draws whose reference label differs, likewise.
        unconverged: Estimation solves that failed or missed a tolerance, per estimation draw.
    """

    name: str
    method: str
    guarantee: str
    guarantees: Mapping[str, int]
    norm: str
    sigma: float | None
    n: int | None
    alpha: float | None
    images: int
    radii: tuple[float, ...]
    certified_accuracy: tuple[float, ...]
    high_probability_accuracy: tuple[float, ...] | None
    rho: float
    accuracy_under_noise: float | None
    abstentions: int
    average_certified_radius: float
    largest_radius: float
    cell_evaluations: float | None
    seconds: float | None
    audits: int | None
    disagreements: int | None
    unconverged: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON types."""
        return dataclasses.asdict(self)


def summarize(
    records: Iterable[Record], *, radii: Sequence[float], name: str = "run", rho: float = RHO
) -> Summary:
    """Return the summary of one run.

    Args:
        records: The run's records, at least one.
        radii: Radii of the accuracies, pixel units, >= 0.
        name: How to call the run.
        rho: Failure probability of each high-probability accuracy, in (0, 1).

    Raises:
        ConfigurationError: A radius or `rho` out of range.
        RunFolderError: No records, or records of several configurations.
    """
    rows = list(records)
    if not rows:
        raise RunFolderError(f"{name} has no records yet")
    grid = check_radii(radii)
    if not 0 < rho < 1:
        raise ConfigurationError(f"rho must lie in (0, 1), but got {rho}")
    guarantee = _guarantee(rows)
    draws = NO_DRAWS if guarantee == DETERMINISTIC else _draws(rows, name)
    return Summary(
        name=name,
        method=_only(rows, "method", name),
        norm=norm_of(rows, name),
        guarantee=guarantee,
        guarantees=dict(sorted(Counter(row["guarantee"] for row in rows).items())),
        images=len(rows),
        radii=tuple(grid),
        certified_accuracy=tuple(certified_accuracy(rows, radius) for radius in grid),
        high_probability_accuracy=None
        if guarantee in ("none", PUBLISHED)
        else tuple(_high_probability(rows, radius, draws["alpha"], rho) for radius in grid),
        rho=rho,
        abstentions=sum(row["prediction"] is None for row in rows),
        average_certified_radius=average_certified_radius(rows),
        largest_radius=max(correct_radii(rows), default=0.0),
        cell_evaluations=_mean_known(rows, "cell_evaluations"),
        seconds=_mean_known(rows, "seconds"),
        **draws,
    )


def norm_of(rows: Sequence[Record], name: str = "run") -> str:
    """Return the norm of the records' radii.

    Raises:
        RunFolderError: Records of several norms.
    """
    return _only([{"norm": row.get("norm", L2)} for row in rows], "norm", name)


def _draws(rows: Sequence[Record], name: str) -> dict[str, Any]:
    """Return the numbers that come from draws."""
    shared = {key: _only(rows, key, name) for key in ("sigma", "n", "alpha")}
    if rows[0]["guarantee"] == PUBLISHED:
        return {**NO_DRAWS, **shared}  # the log tells no more, and alpha may be unknown
    audits = [row["audit"] for row in rows if row["audit"] is not None]
    audited = bool(audits) or rows[0]["method"].startswith("srs")
    return {
        **shared,
        "accuracy_under_noise": _mean(row["counts0"][row["label"]] / row["n0"] for row in rows),
        "audits": sum(audit["drawn"] for audit in audits) if audited else None,
        "disagreements": sum(audit["disagreements"] for audit in audits) if audited else None,
        "unconverged": sum(row["unconverged"] for row in rows) / sum(row["n"] for row in rows),
    }


def certified_accuracy(records: Sequence[Record], radius: float) -> float:
    """Return the share of images predicted correctly and certified to at least `radius`."""
    return sum(certified >= radius for certified in correct_radii(records)) / len(records)


def average_certified_radius(records: Sequence[Record]) -> float:
    """Return the mean over all images of the certified radius, 0 where the prediction is wrong.

    Zhai et al., *MACER*, ICLR 2020, section 4.
    """
    return math.fsum(correct_radii(records)) / len(records)


def correct_radii(records: Iterable[Record]) -> list[float]:
    """Return the radii of the correct predictions, in the records' order."""
    return [float(record["radius"]) for record in records if record["correct"]]


def high_probability_accuracy(certified: int, images: int, *, alpha: float, rho: float) -> float:
    """Return a lower bound of the share of images whose certified claim is true.

    Each of the `images` certificates is false with probability at most `alpha`, independently, so
    the number of false ones is at most the ``1 - rho`` quantile q of Binomial(images, alpha):

        P(true certified accuracy >= (certified - q) / images) >= 1 - rho.

    This replaces the Bernstein form of Cohen, Rosenfeld and Kolter (2019), appendix, which needs
    ``sqrt(2 alpha (1 - alpha) log(1 / rho) / images)``: their ``analyze.py`` leaves out the 2, and
    then the bound misses more often than `rho` for many images.

    Args:
        certified: Images certified correctly at the radius, 0 <= certified <= images.
        images: All images.
        alpha: Failure probability of one certificate, in [0, 1).
        rho: Failure probability of the result, in (0, 1).
    """
    return max(0, certified - false_at_most(images, alpha=alpha, rho=rho)) / images


def false_at_most(images: int, *, alpha: float, rho: float) -> int:
    """Return how many of `images` certificates may be false at most, with probability 1 - rho.

    Each is false with probability at most `alpha`, independently of the others: this is the
    ``1 - rho`` quantile of Binomial(images, alpha).

    Args:
        images: All certificates, >= 1.
        alpha: Failure probability of one, in [0, 1).
        rho: Failure probability of the result, in (0, 1).
    """
    from scipy.special import bdtr  # not scipy.stats, which takes a second to import

    return int(np.argmax(bdtr(np.arange(images + 1), images, alpha) >= 1.0 - rho))


def default_radii(sigmas: Iterable[float], largest: float) -> list[float]:
    """Return L2 radii from 0 to the last one that somebody reaches, at least three.

    They are multiples of sigma / 2, or of a round number where no run has noise.

    Args:
        sigmas: Noise levels of the runs; the smallest sets the step, doubled until at most 12 radii
            are left.
        largest: Largest radius of a correct prediction in any run.
    """
    step = min(sigmas, default=2 * _round_step(largest)) / 2
    while largest / step > 10:
        step *= 2
    last = max(2, math.floor(largest / step))
    return [round(k * step, 10) for k in range(last + 1)]


def default_linf_radii(largest: float) -> list[float]:
    """Return 0, 1, 2, 4, 8 ... levels of a pixel, up to the last one that somebody reaches."""
    return [0.0, *(2**k / LEVELS for k in range(8) if k < 2 or 2**k <= largest * LEVELS)]


def _round_step(largest: float) -> float:
    """Return the smallest of 1, 2.5 and 5 times a power of ten that leaves at most ten radii."""
    if largest <= 0.0:
        return 0.25
    power = 10.0 ** math.floor(math.log10(largest / 10))
    return next(power * factor for factor in (1, 2.5, 5, 10) if power * factor >= largest / 10)


def check_radii(radii: Iterable[float]) -> list[float]:
    """Return `radii` sorted, each once.

    Raises:
        ConfigurationError: None at all, or one that is negative or not finite.
    """
    found = sorted({float(radius) for radius in radii})
    if not found:
        raise ConfigurationError("radii must name at least one radius")
    for radius in found:
        if not (math.isfinite(radius) and radius >= 0):
            raise ConfigurationError(f"radii must be finite and >= 0, but got {radius}")
    return found


def _high_probability(rows: Sequence[Record], radius: float, alpha: float, rho: float) -> float:
    certified = sum(found >= radius for found in correct_radii(rows))
    return high_probability_accuracy(certified, len(rows), alpha=alpha, rho=rho)


def _only(rows: Sequence[Record], key: str, name: str) -> Any:
    """Return the value that all rows share."""
    values = {row[key] for row in rows}
    if len(values) > 1:
        raise RunFolderError(f"{name} mixes records of several {key}: {sorted(values)}")
    return values.pop()


def _guarantee(rows: Sequence[Record]) -> str:
    """Return the guarantee all rows have, joined where several do; one ``none`` voids them all."""
    found = {row["guarantee"] for row in rows}
    return "none" if "none" in found else " + ".join(sorted(found))


def _mean_known(rows: Sequence[Record], key: str) -> float | None:
    """Return the mean of a number that logs of others may lack."""
    values = [row.get(key) for row in rows]
    return None if None in values else _mean(values)  # pyright: ignore[reportArgumentType]


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)
