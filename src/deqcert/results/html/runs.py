"""What a page knows of one run: its folder's content, its numbers, and how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from deqcert.certificate import NORMS
from deqcert.results.audit_cost import AuditCost, audit_costs, audited_records
from deqcert.results.cohen import PUBLISHED, CohenLog
from deqcert.results.plots import COLOURS, UNGUARANTEED_COLOUR
from deqcert.results.progress import read_progress
from deqcert.results.run_folder import RunFolder
from deqcert.results.simultaneous import Claim, simultaneous_claims
from deqcert.results.summary import L2, LINF, Record, Summary
from deqcert.results.thumbnails import read_thumbnails

# The same patterns as in `plots.LINES`, in pixels, as SVG and plotly write them.
DASHES = ("solid", "10px,3px", "10px,3px,2px,3px", "16px,4px", "6px,2px,2px,2px,2px,2px")
MOST_AUDITS = 500
"""Audited images whose cost is worked out: as many points as a figure can show apart."""
UNGUARANTEED_DASH = "2px,3px"
# As `plots.MARKERS`.
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a run is drawn: colour, dashes and marker each tell it apart on their own."""

    colour: str
    dash: str
    symbol: str


@dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """One run of a page.

    Attributes:
        number: Its place on the page, from 0.
        name: How the page calls it.
        norm: ``L2`` or ``Linf``.
        configuration: What decides its results, from ``run.json``.
        environments: What may differ within a run.
        records: Its records; none yet is allowed.
        summary: Its numbers, None without records.
        thumbnails: WebP pictures in base64 by image index.
        planned: Images the run is to have in the end, where that is known.
    """

    number: int
    name: str
    norm: str
    configuration: Mapping[str, Any]
    environments: Sequence[Mapping[str, Any]] = ()
    records: Sequence[Record] = field(default=(), repr=False)
    summary: Summary | None = None
    thumbnails: Mapping[int, str] = field(default_factory=dict, repr=False)
    planned: int | None = None

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.summary.method if self.summary else self.configuration.get("method", "?"))

    @property
    def guarantee(self) -> str:
        """Guarantee of all records, ``none`` if one has none; empty without records."""
        return self.summary.guarantee if self.summary else ""

    @property
    def claims(self) -> bool:
        """Whether its radii are certified, by a guarantee of ours."""
        return self.guarantee not in ("", "none", PUBLISHED)

    @property
    def title(self) -> str:
        """Its name, with what its radii are worth where they are not certified here."""
        return self.name + {"none": " (no guarantee)", PUBLISHED: " (as published)"}.get(
            self.guarantee, ""
        )

    @property
    def draws(self) -> bool:
        """Whether it certifies by noise."""
        return self.summary is not None and self.summary.sigma is not None

    @property
    def look(self) -> Look:
        """How it is drawn."""
        symbol = SYMBOLS[self.number % len(SYMBOLS)]
        if self.guarantee == "none":
            return Look(colour=UNGUARANTEED_COLOUR, dash=UNGUARANTEED_DASH, symbol=symbol)
        return Look(
            colour=COLOURS[self.number % len(COLOURS)],
            dash=DASHES[self.number % len(DASHES)],
            symbol=symbol,
        )

    @property
    def split_over(self) -> int:
        """Images over which alpha is split: all that are planned, certified yet or not."""
        return max(self.planned or 0, len(self.records))

    @cached_property
    def together(self) -> list[Claim]:
        """What it certifies if all claims shall hold at once, in the records' order."""
        return simultaneous_claims(self.records, images=self.split_over)

    @cached_property
    def audited(self) -> list[Record]:
        """Its records that rest on an audit."""
        return audited_records(self.records)

    @cached_property
    def audit_costs(self) -> list[AuditCost]:
        """What its audits found and cost; of many, an even selection."""
        return audit_costs(self.records, most=MOST_AUDITS)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, where the run has them."""
        names = self.configuration.get("class_names")
        return [str(name) for name in names] if isinstance(names, list) else []


def read_run(
    folder: RunFolder | CohenLog,
    records: Sequence[Record],
    *,
    number: int,
    name: str,
    summary: Summary | None,
) -> ReportedRun:
    """Return a run of a page, the one at place `number`; `summary` is None without records."""
    ours = isinstance(folder, RunFolder)
    return ReportedRun(
        number=number,
        name=name,
        norm=_norm(folder, summary),
        configuration=folder.configuration,
        environments=folder.environments if ours else (),
        records=records,
        summary=summary,
        thumbnails=read_thumbnails(folder.path) if ours else {},
        planned=_planned(folder) if ours else None,
    )


def _norm(folder: RunFolder | CohenLog, summary: Summary | None) -> str:
    """Return the norm of the run's radii, as its records or else its configuration say."""
    if summary is not None:
        return summary.norm
    method = str(folder.configuration.get("method"))
    return LINF if NORMS.get(method) == LINF else L2


def _planned(folder: RunFolder) -> int | None:
    """Return how many images the run is to have, as its last process knew; None if none said."""
    progress = read_progress(folder.path)
    return progress.total if progress is not None else None
