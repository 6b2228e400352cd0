"""Cost against result: what each run spends per image, and what it gets for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deqcert.results.html.runs import ReportedRun
from deqcert.results.html.style import (
    DECIMALS,
    Picture,
    axis,
    floored,
    layout,
    literal,
    plain,
)
from deqcert.results.summary import L2, Summary
from deqcert.results.tables import radius_names

WIDE = 8
"""Ratio of costs beyond which a logarithmic axis shows them better."""
COSTS = {
    "cell evaluations per image": "cell_evaluations",
    "seconds per image": "seconds",
}


def pareto_picture(runs: Sequence[ReportedRun]) -> Picture | None:
    """Return the figure of two and more runs of one norm; None for fewer."""
    shown = [run for run in runs if run.summary is not None and _costs_known(run.summary)]
    summaries = [run.summary for run in shown if run.summary is not None]
    if len(shown) < 2:
        return None
    import plotly.graph_objects as go

    costs = {name: [getattr(s, field) for s in summaries] for name, field in COSTS.items()}
    results = _results(summaries)
    claims = [run.claims for run in shown]
    first_cost, first_result = _first_cost(shown), next(iter(results))
    x, y = costs[first_cost], results[first_result]
    fronts = {
        cost: {result: front(costs[cost], results[result], claims) for result in results}
        for cost in costs
    }
    best = fronts[first_cost][first_result]
    figure = go.Figure(
        layout=layout(
            xaxis=axis(
                first_cost,
                type=_scale(x),
                showgrid=True,
                rangemode="tozero",
                exponentformat="none",
                separatethousands=True,
            ),
            yaxis=axis(first_result, showgrid=True, showline=False, ticks="", rangemode="tozero"),
            hovermode="closest",
            margin={"l": 66, "r": 20, "t": 12, "b": 52},
        )
    )
    figure.add_scatter(
        x=[x[k] for k in best],
        y=[y[k] for k in best],
        mode="lines",
        line={"color": "#9a9a9a", "width": 1.2, "shape": "hv", "dash": "3px,2px"},
        hoverinfo="skip",
        meta={"part": "front"},
    )
    for run, cost, result in zip(shown, x, y, strict=True):
        figure.add_scatter(**_point(run, cost, result))
    return Picture(
        key=f"pareto-{shown[0].norm}",
        title="Cost against result",
        caption=_caption(shown),
        alt=_alt(shown, best, first_cost, first_result, x, y),
        figure=plain(figure),
        more={
            "costs": costs,
            "results": results,
            "fronts": fronts,
            "scales": {name: _scale(values) for name, values in costs.items()},
            "cost": first_cost,
            "result": first_result,
        },
        height=380,
    )


def _costs_known(summary: Summary) -> bool:
    """Whether both costs are recorded: logs of others lack them."""
    return summary.cell_evaluations is not None and summary.seconds is not None


def front(costs: Sequence[float], results: Sequence[float], claims: Sequence[bool]) -> list[int]:
    """Return the positions nobody beats in both, by rising cost; those without claims compete not.

    >>> front([1.0, 2.0, 3.0, 0.5], [0.5, 0.4, 0.9, 2.0], [True, True, True, False])
    [0, 2]
    """
    best: list[int] = []
    order = sorted(
        (k for k in range(len(costs)) if claims[k]), key=lambda k: (costs[k], -results[k])
    )
    for k in order:
        if not best or results[k] > results[best[-1]]:
            best.append(k)
    return best


def _results(summaries: Sequence[Summary]) -> dict[str, list[float]]:
    """Return the results a reader may choose from, by name."""
    unit = "pixel units" if summaries[0].norm == L2 else "pixel units, Linf"
    found = {
        f"average certified radius, {unit}": floored(
            [s.average_certified_radius for s in summaries], DECIMALS[summaries[0].norm]
        ).tolist(),
    }
    for position, name in enumerate(radius_names(summaries[0])):
        found[f"certified accuracy at {name}, %"] = [
            100 * s.certified_accuracy[position] for s in summaries
        ]
    return found


def _scale(costs: Sequence[float]) -> str:
    """Return the axis that shows these costs apart: logarithmic where they span much."""
    return "log" if min(costs) > 0 and max(costs) / min(costs) > WIDE else "linear"


def _first_cost(runs: Sequence[ReportedRun]) -> str:
    """Cell evaluations compare where all runs share one model; otherwise seconds do."""
    digests = {str(run.configuration.get("weights_digest")) for run in runs}
    return next(iter(COSTS)) if len(digests) == 1 else list(COSTS)[1]


def _point(run: ReportedRun, cost: float, result: float) -> dict[str, Any]:
    look = run.look
    text = literal(run.title)
    return {
        "x": [cost],
        "y": [result],
        "mode": "markers",
        "marker": {
            "symbol": look.symbol,
            "size": 13,
            "color": look.colour if run.claims else "white",
            "line": {"color": look.colour, "width": 1.6},
        },
        "cliponaxis": False,
        "name": text,
        "meta": {"run": run.number, "part": "point"},
        "hovertemplate": "%{y:~g} for %{x:,.4~g}",
    }


def _caption(runs: Sequence[ReportedRun]) -> str:
    parts = ["Up and to the left is better; the dashed line joins the runs that no other beats."]
    if any(not run.claims for run in runs):
        parts.append("Runs without a guarantee (open markers) do not compete.")
    parts.append(
        "A cell evaluation is one application of a model's cell to one sample: it compares runs of "
        "one model. Seconds compare runs on one machine."
    )
    return " ".join(parts)


def _alt(
    runs: Sequence[ReportedRun],
    best: Sequence[int],
    cost: str,
    result: str,
    x: Sequence[float],
    y: Sequence[float],
) -> str:
    """Describe the points in words."""
    points = "; ".join(
        f"{run.name}: {value:g} for {spent:,.4g}"
        for run, spent, value in zip(runs, x, y, strict=True)
    )
    front_names = ", ".join(runs[k].name for k in best)
    return f"{result} against {cost}. {points}. Not beaten: {front_names or 'none'}."
