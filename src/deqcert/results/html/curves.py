"""Certified accuracy against radius: exact step curves with bands, and published rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deqcert.results.html.published import PublishedRow, published_rows
from deqcert.results.html.runs import ReportedRun
from deqcert.results.html.style import (
    DECIMALS,
    INK,
    Picture,
    axis,
    faint,
    floored,
    layout,
    literal,
    percent_axis,
    plain,
)
from deqcert.results.summary import L2, LINF, correct_radii
from deqcert.results.tables import radius_names
from deqcert.stats import clopper_pearson_lower, clopper_pearson_upper

CONFIDENCE = 0.95
"""Of the bands, at each radius."""
GRID_POINTS = 120
"""Radii, about, at which the pointer finds numbers."""
SYMBOL = {L2: "\N{SCRIPT SMALL L}\N{SUBSCRIPT TWO}", LINF: "\N{SCRIPT SMALL L}\N{INFINITY}"}


def curves_picture(runs: Sequence[ReportedRun]) -> Picture:
    """Return the figure of all runs of one norm that have records."""
    import plotly.graph_objects as go

    shown = [run for run in runs if run.summary is not None]
    norm = shown[0].norm
    rows = [row for run in shown for row in published_rows(run)]
    published = list({row.title: row for row in rows}.values())
    end = _end(shown, published)
    # A little more than the data, so that markers at the edges are whole.
    whole = {"xaxis": [-0.008 * end, end], "yaxis": [-1, 101]}
    figure = go.Figure(
        layout=layout(
            hovermode="x unified",
            xaxis=axis(
                f"{SYMBOL[norm]} radius r, pixel units", range=whole["xaxis"], hoverformat=".4~f"
            ),
            yaxis=percent_axis("certified accuracy at r", range=whole["yaxis"], ticksuffix=" %"),
        )
    )
    for run in shown:
        for kind, radii in _kinds(run):
            for trace in _traces(run, kind, np.sort(np.asarray(radii, dtype=np.float64)), end):
                figure.add_scatter(**trace)
    for place, row in enumerate(published):
        figure.add_scatter(**_published_trace(row, place))
    return Picture(
        key=f"curves-{norm}",
        title="Certified accuracy against radius",
        caption=_caption(shown, published),
        alt=_alt(shown),
        figure=plain(figure),
        more={"whole": whole, "published": [row.title for row in published]},
        height=440,
    )


def _kinds(run: ReportedRun) -> list[tuple[str, list[float]]]:
    """Return the radii of correct predictions, claimed each for itself and all together."""
    each = ("each", correct_radii(run.records))
    if not run.claims:
        return [each]
    claims = zip(run.together, run.records, strict=True)
    return [
        each,
        (
            "together",
            [c.radius for c, row in claims if c.prediction is not None and row["correct"]],
        ),
    ]


def _traces(
    run: ReportedRun,
    kind: str,
    radii: NDArray[np.float64],  # (correct,) sorted
    end: float,
) -> list[dict[str, Any]]:
    """Return the traces of one curve: band, line, markers, and what the pointer finds."""
    images, look = len(run.records), run.look
    x, counts = _corners(floored(radii, DECIMALS[run.norm]), end)
    shared = {
        "meta": {"run": run.number, "kind": kind},
        "visible": kind == "each",
        "line": {"color": look.colour, "dash": look.dash, "width": 2.2, "shape": "vh"},
        "hoverinfo": "skip",
        "mode": "lines",
    }

    def part(_part: str, /, **changes: Any) -> dict[str, Any]:
        return {**shared, **changes, "meta": {**shared["meta"], "part": _part}}

    traces = []
    if run.claims:
        low, high = band(counts, images)
        edge = {"color": look.colour, "width": 0, "shape": "vh"}
        fill = faint(look.colour, 0.13)
        traces = [
            part("band", x=x, y=_percents(low), line=edge),
            part("band", x=x, y=_percents(high), line=edge, fill="tonexty", fillcolor=fill),
        ]
    traces.append(part("line", x=x, y=_percents(counts / images)))
    return [*traces, *_points(run, part, radii, end)]


def _points(run: ReportedRun, part: Any, radii: NDArray[np.float64], end: float) -> list[Any]:
    """Return the markers at the table's radii, and the numbers at a grid of them."""
    images, look = len(run.records), run.look
    table = [r for r in (run.summary.radii if run.summary else ()) if r <= end]
    marked = [r for r in table if at_least(radii, [r])[0] > 0]
    grid = _grid(end)
    found = at_least(radii, grid)
    low, high = band(found, images)
    text = [
        f"{100 * k / images:.1f} %" + (f"  [{100 * a:.1f}, {100 * b:.1f}]" if run.claims else "")
        for k, a, b in zip(found, low, high, strict=True)
    ]
    marker = {
        "symbol": look.symbol,
        "size": 8,
        "color": "white",
        "line": {"color": look.colour, "width": 1.6},
    }
    return [
        part(
            "markers",
            x=marked,
            y=_percents(at_least(radii, marked) / images),
            mode="markers",
            marker=marker,
            cliponaxis=False,
        ),
        part(
            "numbers",
            x=grid,
            y=_percents(found / images),
            mode="markers",
            marker={"opacity": 0, "color": look.colour},
            text=text,
            name=literal(run.title),
            hoverinfo=None,
            hovertemplate="%{text}",
        ),
    ]


def band(
    counts: NDArray[np.int64],  # (*batch,) images certified correctly, in [0, images]
    images: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the two-sided `CONFIDENCE` interval of the certified accuracy at each radius.

    Clopper and Pearson (1934), the images taken as a random sample of what they stand for.
    """
    tail = (1 - CONFIDENCE) / 2
    values, where = np.unique(counts, return_inverse=True)
    low = np.atleast_1d(clopper_pearson_lower(values, images, tail))
    high = np.atleast_1d(clopper_pearson_upper(values, images, tail))
    return low[where].reshape(counts.shape), high[where].reshape(counts.shape)


def at_least(
    radii: NDArray[np.float64],  # (correct,) sorted
    at: Sequence[float],
) -> NDArray[np.int64]:
    """Return how many `radii` are at least each of `at`."""
    return len(radii) - np.searchsorted(radii, np.asarray(at, dtype=np.float64), side="left")


def _corners(
    radii: NDArray[np.float64],  # (correct,) sorted
    end: float,
) -> tuple[list[float], NDArray[np.int64]]:
    """Return corners (radius, images certified): each holds up to its radius, inclusively."""
    steps = np.unique(radii)
    x = [0.0, *steps.tolist(), end]
    return x, np.concatenate([[len(radii)], at_least(radii, steps.tolist()), [0]]).astype(np.int64)


def _percents(shares: Any) -> list[float]:
    return np.round(100 * np.asarray(shares, dtype=np.float64), 3).tolist()


def _end(runs: Sequence[ReportedRun], published: Sequence[PublishedRow]) -> float:
    """Where the radius axis ends: past the last step, and not far past it."""
    reached = [run.summary.largest_radius for run in runs if run.summary]
    largest = max([*reached, *(row.radii[-1] for row in published)])
    radii = [r for run in runs if run.summary for r in run.summary.radii]
    return 1.06 * largest if largest > 0 else max(radii) or 1.0


def _grid(end: float) -> list[float]:
    """Return round radii from 0 to `end`."""
    power = 10.0 ** math.floor(math.log10(end / GRID_POINTS))
    step = next(power * f for f in (1, 2, 2.5, 5, 10) if power * f >= end / GRID_POINTS)
    return [round(k * step, 8) for k in range(math.floor(end / step) + 1)]


def _published_trace(row: PublishedRow, place: int) -> dict[str, Any]:
    """Return a published row: its numbers at its radii, joined by a thin line."""
    symbols = ("circle-open", "square-open", "triangle-up-open", "diamond-open", "cross-open", "x")
    return {
        "x": list(row.radii),
        "y": list(row.accuracy),
        "mode": "lines+markers" if len(row.radii) > 1 else "markers",
        "line": {"color": INK, "width": 1, "dash": "2px,2px"},
        "marker": {"symbol": symbols[place % len(symbols)], "size": 6, "color": INK},
        "meta": {"part": "published", "row": place},
        "visible": row.shown,
        "name": literal(row.title),
        "hovertemplate": "%{y} %",
    }


def _caption(runs: Sequence[ReportedRun], published: Sequence[PublishedRow]) -> str:
    """Say how to read the figure."""
    parts = [
        "Share of images whose prediction is correct and certified to at least r; "
        "abstentions count as wrong."
    ]
    if any(run.claims for run in runs):
        parts.append(
            f"Bands: {100 * CONFIDENCE:g} % confidence at each radius (Clopper-Pearson), images "
            "taken as a random sample."
        )
    if any(run.guarantee == "none" for run in runs):
        parts.append("Dotted grey: no guarantee, so no band.")
    if published:
        parts.append(f"Thin black: published. {published[0].source}")
    return " ".join(parts)


def _alt(runs: Sequence[ReportedRun]) -> str:
    """Describe the curves by their numbers at the table's radii."""
    said = []
    for run in runs:
        if run.summary is None:
            continue
        names = radius_names(run.summary)
        picked = sorted({0, len(names) // 2, len(names) - 1})
        values = ", ".join(
            f"{100 * run.summary.certified_accuracy[k]:.1f} % at {names[k]}" for k in picked
        )
        said.append(f"{run.name}: {values}")
    return "Certified accuracy against radius. " + "; ".join(said) + "."
