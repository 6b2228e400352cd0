"""How the solves converged: steps and residuals over all draws, image by image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from deqcert.results.html.runs import ReportedRun
from deqcert.results.html.style import Picture, axis, faint, layout, literal, plain

PANELS = {"steps": "x", "residual": "x2"}


def solvers_picture(runs: Sequence[ReportedRun]) -> Picture | None:
    """Return the figure of all runs with solver statistics; None where there are none."""
    shown = [run for run in runs if any(row.get("steps") for row in run.records)]
    if not shown:
        return None
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1,
        cols=2,
        horizontal_spacing=0.13,
        subplot_titles=("steps per draw", "final relative residual"),
    )
    figure.update_layout(layout(hovermode="closest", margin={"l": 44, "r": 14, "t": 34, "b": 52}))
    names = _names(shown)
    for column in (1, 2):
        title = "share of an image's draws at or below"
        figure.update_xaxes(
            axis(title, type="category", categoryorder="array", categoryarray=names),
            row=1,
            col=column,
        )
    figure.update_yaxes(axis("", rangemode="tozero", showgrid=True, showline=False), row=1, col=1)
    figure.update_yaxes(
        axis("", type="log", showgrid=True, showline=False, exponentformat="power"),
        row=1,
        col=2,
    )
    for run in shown:
        for column, field in enumerate(PANELS, start=1):
            for trace in _traces(run, field):
                figure.add_scatter(**trace, row=1, col=column)
    figure.update_annotations(font_size=13)
    return Picture(
        key=f"solvers-{shown[0].norm}",
        title="Solver convergence",
        caption=(
            "Quantiles over the estimation draws of an image. Lines: the median image; bands: four "
            "of five images. " + " ".join(filter(None, (unconverged(run) for run in shown)))
        ),
        alt="Solver steps and residuals. " + " ".join(_said(run) for run in shown),
        figure=plain(figure),
        height=320,
    )


def unconverged(run: ReportedRun) -> str:
    """Say how many solves missed their tolerance; empty where none did."""
    missed = sum(row.get("unconverged", 0) for row in run.records)
    if not missed:
        return ""
    return f"{run.name}: {missed:,} solves missed their tolerance or failed."


def spread(run: ReportedRun, field: str) -> dict[str, tuple[float, float, float]]:
    """Return low, median and high over images of each quantile: tenth, half and nine tenths."""
    values: dict[float, list[float]] = {}
    for row in run.records:
        for name, value in (row.get(field) or {}).items():
            if value is not None and math.isfinite(value):
                values.setdefault(float(name), []).append(float(value))
    return {_percent(q): _low_middle_high(sorted(values[q])) for q in sorted(values)}


def _low_middle_high(values: Sequence[float]) -> tuple[float, float, float]:
    last = len(values) - 1
    return values[round(0.1 * last)], median(values), values[round(0.9 * last)]


def _percent(quantile: float) -> str:
    return f"{100 * quantile:g} %"


def _names(runs: Sequence[ReportedRun]) -> list[str]:
    """Return the names of all quantiles, in order."""
    found = {name for run in runs for field in PANELS for name in spread(run, field)}
    return sorted(found, key=lambda name: float(name.removesuffix(" %")))


def _traces(run: ReportedRun, field: str) -> list[dict[str, Any]]:
    """Return band and line of one run in one panel."""
    found, look = spread(run, field), run.look
    if field == "residual":  # a logarithmic axis has no place for exact solves
        found = {name: values for name, values in found.items() if values[0] > 0}
    x = list(found)
    low, middle, high = ([values[k] for values in found.values()] for k in range(3))
    edge = {"color": look.colour, "width": 0}
    return [
        {
            "x": x,
            "y": low,
            "mode": "lines",
            "line": edge,
            "hoverinfo": "skip",
            "meta": {"run": run.number, "part": "band"},
        },
        {
            "x": x,
            "y": high,
            "mode": "lines",
            "line": edge,
            "fill": "tonexty",
            "fillcolor": faint(look.colour, 0.13),
            "hoverinfo": "skip",
            "meta": {"run": run.number, "part": "band"},
        },
        {
            "x": x,
            "y": middle,
            "mode": "lines+markers",
            "line": {"color": look.colour, "dash": look.dash, "width": 1.8},
            "marker": {
                "symbol": look.symbol,
                "size": 7,
                "color": "white",
                "line": {"color": look.colour, "width": 1.5},
            },
            "customdata": [[a, b] for a, b in zip(low, high, strict=True)],
            "name": literal(run.name),
            "meta": {"run": run.number, "part": "line"},
            "hovertemplate": "%{y:.3~g} (%{customdata[0]:.3~g} to %{customdata[1]:.3~g})",
        },
    ]


def _said(run: ReportedRun) -> str:
    """Say the medians in words."""
    steps, residual = spread(run, "steps"), spread(run, "residual")
    parts = [
        f"{name} of draws within {steps[name][1]:g} steps"
        + (f", residual {residual[name][1]:.1e}" if name in residual else "")
        for name in steps
        if name in ("50 %", "100 %")
    ]
    return f"{run.name}: {'; '.join(parts)}."
