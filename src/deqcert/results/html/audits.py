"""Audit disagreements, and what they cost in radius."""

from __future__ import annotations

import math
from collections.abc import Sequence

from deqcert.results.audit_cost import AuditCost
from deqcert.results.html.runs import ReportedRun
from deqcert.results.html.style import (
    DECIMALS,
    Picture,
    axis,
    faint,
    floored,
    layout,
    literal,
    plain,
)


def audits_picture(runs: Sequence[ReportedRun]) -> Picture | None:
    """Return the figure of all runs that audited with a guarantee; None where there are none."""
    shown = [run for run in runs if run.audit_costs]
    if not shown:
        return None
    import plotly.graph_objects as go

    figure = go.Figure(
        layout=layout(
            hovermode="closest",
            xaxis=axis("disagreements per 100 audited draws", rangemode="tozero", showgrid=True),
            yaxis=axis("radius lost, pixel units", rangemode="tozero", showgrid=True, ticks=""),
        )
    )
    for run in shown:
        look, costs = run.look, [cost for cost in run.audit_costs if cost.found + cost.unseen > 0]
        for part, values in _parts(costs).items():
            filled = part == "found"
            figure.add_scatter(
                x=[round(100 * cost.rate, 4) for cost in costs],
                y=floored(values, DECIMALS[run.norm]).tolist(),
                mode="markers",
                cliponaxis=False,  # most points lie on an axis: no disagreement, nothing lost
                marker={
                    "symbol": look.symbol if filled else f"{look.symbol}-open",
                    "size": 8,
                    "color": faint(look.colour, 0.75) if filled else look.colour,
                },
                customdata=[[c.index, c.drawn, c.disagreements] for c in costs],
                name=literal(f"{run.name}: {_WORDS[part]}"),
                meta={"run": run.number, "part": part},
                hovertemplate=(
                    "image %{customdata[0]}: %{customdata[2]} of %{customdata[1]} disagree; "
                    "%{y:.4f} lost"
                ),
            )
    return Picture(
        key=f"audits-{shown[0].norm}",
        title="Audit disagreements, and what they cost",
        caption=(
            "One point per audited image. Filled: radius lost to disagreements that were found. "
            "Open: radius lost to those an audit of this size cannot exclude, against knowing that "
            "every serialized label is right. Images without a radius to lose are left out. "
            "Yardsticks, no claims."
        ),
        alt="Radius lost against the rate of disagreement. "
        + " ".join(audit_sentence(run) for run in shown),
        figure=plain(figure),
        height=340,
    )


_WORDS = {"found": "lost to disagreements found", "unseen": "lost to what the audit leaves open"}


def _parts(costs: Sequence[AuditCost]) -> dict[str, list[float]]:
    return {"unseen": [c.unseen for c in costs], "found": [c.found for c in costs]}


def audit_sentence(run: ReportedRun) -> str:
    """Say in words what the audits of a run found and cost; empty without audits."""
    costs = run.audit_costs
    if not costs:
        return ""
    audits = [row["audit"] for row in run.audited]
    drawn = sum(audit["drawn"] for audit in audits)
    wrong = sum(audit["disagreements"] for audit in audits)
    found = math.fsum(cost.found for cost in costs) / len(costs)
    unseen = math.fsum(cost.unseen for cost in costs) / len(costs)
    images = "image was" if len(audits) == 1 else "images were"
    over = "" if len(costs) == len(audits) else f" (over {len(costs):,} of the images)"
    share = f" ({100 * wrong / drawn:.2g} %)" if drawn and wrong else ""
    return (
        f"{run.name}: {len(audits):,} {images} audited, {drawn:,} labels solved again, {wrong:,} "
        f"of them disagreed{share}. They cost {found:.4f} of radius on average{over}; what audits "
        f"of this size cannot exclude, another {unseen:.4f}."
    )
