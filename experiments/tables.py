"""``table.json`` of a study, and what ``table.md`` shows: our rows, published ones beside them.

Everything is computed from the records on disk, so that a table can be made at any time, of a study
half run as well.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deqcert.results import RunFolder, is_run_folder
from deqcert.results.summary import (
    RHO,
    average_certified_radius,
    certified_accuracy,
    correct_radii,
    high_probability_accuracy,
)
from experiments.measures import gaps, radius_differences, released_code_claims
from experiments.published import PublishedRow, PublishedTable, find_table
from experiments.running import Place
from experiments.settings import Claim, Row, Study

Record = dict[str, Any]
UNTRAINED = " [untrained weights: that it runs, no accuracy claimed]"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of ours in the table.

    Attributes:
        name: Name of the row.
        title: What the table calls it.
        norm: Norm of its radii.
        method: Its method, or the rule of a claim.
        settings: Its settings, those of the run.
        status: ``complete``, ``partial``, or why it was not run.
        images: Images certified.
        planned: Images it is about.
        accuracy: Certified accuracy at the radii of its norm, in [0, 1]; None of untrained weights,
            whose right answers are luck.
        high_probability: Lower bounds of the share whose claim is true; None without a guarantee,
            and of untrained weights.
        average_radius: Average certified radius; None of untrained weights.
        abstentions: Images without a certified class.
        clean: Accuracy without noise on the whole split, or None.
        cell_evaluations: Mean per image.
        seconds: Mean wall-clock seconds per image.
        guarantees: Images by guarantee.
        facts: What a deterministic proof rests on.
        environments: What it ran on.
        published: The published row that it repeats.
        note: What a reader must know about it.
    """

    name: str
    title: str
    norm: str
    method: str
    settings: dict[str, Any]
    status: str
    images: int
    planned: int
    accuracy: tuple[float, ...] | None = None
    high_probability: tuple[float, ...] | None = None
    average_radius: float | None = None
    abstentions: int | None = None
    clean: float | None = None
    cell_evaluations: float | None = None
    seconds: float | None = None
    guarantees: dict[str, int] | None = None
    facts: dict[str, Any] | None = None
    environments: tuple[dict[str, Any], ...] = ()
    published: str | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Results:
    """A study's records and the lines made of them.

    Attributes:
        study: The study.
        lines: A line per row and claim.
        records: Records by name of row or claim; those without any are left out.
        tables: The published tables.
    """

    study: Study
    lines: tuple[Line, ...]
    records: dict[str, list[Record]]
    tables: tuple[PublishedTable, ...]


def collect(study: Study, place: Place) -> Results:
    """Return what is on disk of a study."""
    records: dict[str, list[Record]] = {}
    lines = []
    for row in study.rows:
        run = RunFolder.open(place.folder(row)) if is_run_folder(place.folder(row)) else None
        rows = sorted(run.records(), key=lambda record: record["index"]) if run else []
        if rows:
            records[row.name] = rows
        lines.append(_line(row, study, place, run, rows))
        for claim in study.claims:
            if claim.of == row.name:
                claimed = released_code_claims(rows)
                if claimed:
                    records[claim.name] = claimed
                lines.append(_claim_line(claim, lines[-1], claimed, study.radii))
    tables = tuple(find_table(name) for name in study.published)
    return Results(study=study, lines=tuple(lines), records=records, tables=tables)


def _claim_line(claim: Claim, source: Line, rows: Sequence[Record], radii: Sequence[float]) -> Line:
    """Return the line of what another rule claims for the draws of `source`."""
    return Line(
        name=claim.name,
        title=claim.title,
        norm="L2",
        method=claim.rule,
        settings={"of": claim.of},
        status=source.status,
        images=len(rows),
        planned=source.planned,
        published=claim.published,
        note=f"the rule of the released code on the draws of {source.title}" if rows else "",
        **(_numbers(rows, radii) if rows else {}),
    )


def _line(
    row: Row, study: Study, place: Place, run: RunFolder | None, rows: Sequence[Record]
) -> Line:
    planned = len(place.indices(row))
    clean = place.clean_file(row)
    common: dict[str, Any] = {
        "name": row.name,
        "title": row.title + (UNTRAINED if row.untrained else ""),
        "norm": row.norm,
        "method": row.method,
        "settings": {**row.options, "model": row.model, "skip": row.skip, "limit": row.limit},
        "images": len(rows),
        "planned": planned,
        "clean": json.loads(clean.read_text())["accuracy"] if clean.is_file() else None,
        "published": row.published,
        "note": row.note,
    }
    if run is None or not rows:
        return Line(**common, status=_why_not(row, study, place))
    settings = {**common["settings"], **run.configuration}
    settings.pop("class_names", None)  # a thousand of them for ImageNet, and in the run folder
    common["settings"] = settings
    common["environments"] = tuple(run.environments)
    radii = study.radii_linf if row.norm == "Linf" else study.radii
    status = "complete" if len(rows) >= planned else "partial"
    numbers = _numbers(rows, radii)
    if row.untrained:
        numbers |= dict.fromkeys(("accuracy", "high_probability", "average_radius"))
    return Line(**common, status=status, facts=rows[0].get("facts"), **numbers)


def _why_not(row: Row, study: Study, place: Place) -> str:
    if place.shelf.find(row) is not None:
        return "not run yet"
    made = study.train.get(row.model)
    return f"not run: no weights of {row.model}" + (f" (to be made by `{made}`)" if made else "")


def _numbers(rows: Sequence[Record], radii: Sequence[float]) -> dict[str, Any]:
    guarantees = dict(sorted(Counter(row["guarantee"] for row in rows).items()))
    return {
        "accuracy": tuple(certified_accuracy(rows, radius) for radius in radii),
        "high_probability": None
        if "none" in guarantees
        else tuple(_high_probability(rows, radius) for radius in radii),
        "average_radius": average_certified_radius(rows),
        "abstentions": sum(row["prediction"] is None for row in rows),
        "cell_evaluations": math.fsum(row["cell_evaluations"] for row in rows) / len(rows),
        "seconds": math.fsum(row["seconds"] for row in rows) / len(rows),
        "guarantees": guarantees,
    }


def _high_probability(rows: Sequence[Record], radius: float) -> float:
    """A lower bound of the share whose claim is true; deterministic claims are always true."""
    certified = sum(found >= radius for found in correct_radii(rows))
    alpha = rows[0].get("alpha") or 0.0
    if alpha == 0.0:
        return certified / len(rows)
    return high_probability_accuracy(certified, len(rows), alpha=alpha, rho=RHO)


def as_json(results: Results) -> str:
    """Return the content of ``table.json``: everything the tables show, in full precision."""
    study = results.study
    content = {
        "study": study.name,
        "title": study.title,
        "about": study.about,
        "preset": study.preset,
        "data": study.data,
        "seed": study.seed,
        "radii": study.radii,
        "radii_linf": study.radii_linf,
        "rows": [asdict(line) for line in results.lines],
        "pairs": [
            {**asdict(pair), **asdict(difference)} for pair, difference in differences(results)
        ],
        "gaps": {name: asdict(found) for name, found in audited(results).items()},
        "published": [
            {**asdict(table), "rows": [asdict(row) for row in table.rows.values()]}
            for table in results.tables
        ],
    }
    return json.dumps(content, indent=1) + "\n"


def differences(results: Results) -> list[tuple[Any, Any]]:
    """Return each pair of rows that both have records, with their radius differences."""
    found = results.records
    return [
        (pair, radius_differences(found[pair.standard], found[pair.serialized]))
        for pair in results.study.pairs
        if pair.standard in found and pair.serialized in found
    ]


def audited(results: Results) -> dict[str, Any]:
    """Return the gaps of each row of which draws were audited, in studies that compare rows."""
    if not results.study.pairs:
        return {}
    rows = {
        line.name
        for line in results.lines
        if line.method in ("srs", "srs-paper") and line.accuracy is not None
    }
    found = {name: gaps(rows_) for name, rows_ in results.records.items() if name in rows}
    return {name: gap for name, gap in found.items() if gap.images}


def find_published(results: Results, title: str) -> tuple[PublishedTable, PublishedRow] | None:
    """Return the published row of that title, with its table."""
    for table in results.tables:
        if title in table.rows:
            return table, table.rows[title]
    return None
