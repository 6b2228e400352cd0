"""The numbers a reader looks for first, and those that hold for all images at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from deqcert.results.html.runs import ReportedRun
from deqcert.results.html.words import progress
from deqcert.results.tables import average_radius, percent, radius_names


@dataclass(frozen=True, kw_only=True)
class Card:
    """One run at a glance.

    Attributes:
        run: The run.
        images: How many images, of how many.
        accuracy: Certified accuracy at `radius`.
        radius: The radius, as tables name it.
        average_radius: Average certified radius.
        abstained: Share of abstentions.
        seconds: Per image.
    """

    run: ReportedRun
    images: str
    accuracy: str
    radius: str
    average_radius: str
    abstained: str
    seconds: str


def card(run: ReportedRun) -> Card:
    """Return the card of a run with records."""
    summary = run.summary
    assert summary is not None
    middle = len(summary.radii) // 2
    return Card(
        run=run,
        images=progress(run, run.planned),
        accuracy=percent(summary.certified_accuracy[middle]),
        radius=radius_names(summary)[middle],
        average_radius=average_radius(summary.average_certified_radius, summary.norm),
        abstained=percent(summary.abstentions / summary.images),
        seconds="-" if summary.seconds is None else f"{summary.seconds:.3g} s",
    )


@dataclass(frozen=True, kw_only=True)
class TogetherLine:
    """What one run certifies if all its claims shall hold at once.

    Attributes:
        name: The run.
        alpha: Failure probability of all claims together.
        images: Images over which it is split.
        radii: Names of the radii.
        accuracies: Certified accuracy at each.
        average_radius: Average certified radius.
        lost: Images that are certified for themselves only.
    """

    name: str
    alpha: str
    images: str
    radii: Sequence[str]
    accuracies: Sequence[str]
    average_radius: str
    lost: str


def together_lines(runs: Sequence[ReportedRun]) -> list[TogetherLine]:
    """Return a line per run that has a failure probability to split."""
    return [_together(run) for run in runs if run.claims and run.summary and run.summary.alpha]


def _together(run: ReportedRun) -> TogetherLine:
    summary = run.summary
    assert summary is not None
    pairs = list(zip(run.together, run.records, strict=True))
    radii = [c.radius for c, row in pairs if c.prediction is not None and row["correct"]]
    lost = sum(c.prediction is None and row["prediction"] is not None for c, row in pairs)
    return TogetherLine(
        name=run.name,
        alpha=f"{summary.alpha:g}",
        images=f"{run.split_over:,}",
        radii=radius_names(summary),
        accuracies=[percent(sum(r >= at for r in radii) / summary.images) for at in summary.radii],
        average_radius=average_radius(math.fsum(radii) / summary.images, summary.norm),
        lost=f"{lost:,}",
    )
