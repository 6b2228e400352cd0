"""How the solves converged: steps and residuals over all draws, image by image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from deqcert.results.html.runs import ReportedRun
from deqcert.results.html.style import Picture, axis, faint, layout, literal, plain

Spread = Mapping[str, tuple[float, float, float]]
"""Tenth, median and nine tenths over images, by name of the quantile over an image's draws."""


@dataclass(frozen=True)
class Solves:
    """One run's solver statistics.

    Attributes:
        run: The run.
        steps: Steps per draw.
        residual: Final relative residuals; exact solves are left out, a logarithmic axis has no
            place for them.
    """

    run: ReportedRun
    steps: Spread
    residual: Spread


def solvers_picture(runs: Sequence[ReportedRun]) -> Picture | None:
    """Return the figure of all runs with solver statistics; None where there are none."""
    shown = [found for run in runs if (found := _solves(run)).steps]
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
    title = "share of the draws"
    names = _names(shown)
    figure.update_xaxes(axis(title, type="category", categoryorder="array", categoryarray=names))
    figure.update_yaxes(_steps_axis(shown), row=1, col=1)
    figure.update_yaxes(_residual_axis(shown), row=1, col=2)
    for solves in shown:
        for column, found in enumerate((solves.steps, solves.residual), start=1):
            for trace in _traces(solves.run, found):
                figure.add_scatter(**trace, row=1, col=column)
    figure.update_annotations(font_size=13)
    return Picture(
        key=f"solvers-{shown[0].run.norm}",
        title="Solver convergence",
        caption=(
            "Quantiles over the estimation draws of an image. Lines: the median image; bands: four "
            "of five images. " + " ".join(filter(None, (unconverged(s.run) for s in shown)))
        ),
        alt="Solver steps and residuals. " + " ".join(map(_said, shown)),
        figure=plain(figure),
        height=320,
    )


def unconverged(run: ReportedRun) -> str:
    """Say how many solves missed their tolerance; empty where none did."""
    missed = sum(row.get("unconverged", 0) for row in run.records)
    if not missed:
        return ""
    return f"{run.name}: {missed:,} solves missed their tolerance or failed."


def spread(run: ReportedRun, field: str) -> Spread:
    """Return how a quantile over draws spreads over images."""
    values: dict[str, list[float]] = {}
    for row in run.records:
        for name, value in (row.get(field) or {}).items():
            if value is not None and math.isfinite(value):
                values.setdefault(name, []).append(float(value))
    return {
        f"{100 * float(name):g} %": _low_middle_high(sorted(values[name]))
        for name in sorted(values, key=float)
    }


def _low_middle_high(values: Sequence[float]) -> tuple[float, float, float]:
    last = len(values) - 1
    return values[round(0.1 * last)], median(values), values[round(0.9 * last)]


def _solves(run: ReportedRun) -> Solves:
    residual = {name: values for name, values in spread(run, "residual").items() if values[0] > 0}
    return Solves(run, spread(run, "steps"), residual)


def _steps_axis(shown: Sequence[Solves]) -> dict[str, Any]:
    """Return an axis of whole steps from 0."""
    most = max(high for solves in shown for _, _, high in solves.steps.values())
    apart = max(1, math.ceil(most / 6))
    return axis("", rangemode="tozero", dtick=apart, showgrid=True, showline=False)


def _residual_axis(shown: Sequence[Solves]) -> dict[str, Any]:
    """Return a logarithmic axis with few numbers: powers of ten, of less span also 2 and 5."""
    found = [v for solves in shown for values in solves.residual.values() for v in values]
    decades = math.log10(max(found) / min(found)) if found else 0.0
    apart: float | str = math.ceil(decades / 6) if decades > 2 else "D2"
    return axis(
        "", type="log", dtick=apart, tickformat=".0e", showgrid=True, showline=False, ticklen=0
    )


def _names(shown: Sequence[Solves]) -> list[str]:
    """Return the names of all quantiles, in order."""
    found = {name for solves in shown for name in (*solves.steps, *solves.residual)}
    return sorted(found, key=lambda name: float(name.removesuffix(" %")))


def _traces(run: ReportedRun, found: Spread) -> list[dict[str, Any]]:
    """Return band and line of one run in one panel."""
    look, x = run.look, list(found)
    low, middle, high = ([values[k] for values in found.values()] for k in range(3))
    edge = {
        "x": x,
        "mode": "lines",
        "line": {"color": look.colour, "width": 0},
        "hoverinfo": "skip",
        "meta": {"run": run.number, "part": "band"},
    }
    line = {
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
    }
    fill = {"fill": "tonexty", "fillcolor": faint(look.colour, 0.13)}
    return [{**edge, "y": low}, {**edge, "y": high, **fill}, line]


def _said(solves: Solves) -> str:
    """Say the medians in words."""
    parts = [
        f"{name} of draws within {steps[1]:g} steps"
        + (f", residual {solves.residual[name][1]:.1e}" if name in solves.residual else "")
        for name, steps in solves.steps.items()
        if name in ("50 %", "100 %")
    ]
    return f"{solves.run.name}: {'; '.join(parts)}."
