"""What became of the images: certified and right, certified and wrong, or abstained, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deqcert.certificate import DETERMINISTIC
from deqcert.results.html.runs import ReportedRun
from deqcert.results.html.style import INK, Picture, axis, layout, literal, plain

RIGHT, WRONG = "certified, correct", "certified, another class"
UNDECIDED = "abstained: lower bound of p not above 1/2"
GIVEN_UP = "abstained: given up before the draws"
UNPROVED = "abstained: no class proved"


@dataclass(frozen=True)
class Shade:
    """How an outcome is drawn, with and without colour."""

    colour: str
    pattern: str = ""
    stripes: str = INK


SHADES = {
    RIGHT: Shade("#0072B2"),
    WRONG: Shade("#D55E00", "\\", "white"),
    UNDECIDED: Shade("#B8B8B8", "/"),
    GIVEN_UP: Shade("#8A8A8A", "."),
    UNPROVED: Shade("#B8B8B8", "/"),
}


def outcome(record: Mapping[str, Any]) -> str:
    """Return what became of the image of `record`."""
    if record["prediction"] is not None:
        return RIGHT if record["correct"] else WRONG
    if record["guarantee"] == DETERMINISTIC:
        return UNPROVED
    return GIVEN_UP if (record.get("plan") or {}).get("method") == "abstain" else UNDECIDED


def reasons(run: ReportedRun) -> list[tuple[str, int]]:
    """Return why images were given up, with how many; numbers within reasons are left out."""
    found = Counter(
        re.sub(
            r"\d+(\.\d+)?", "…", str((row.get("plan") or {}).get("reason", "no reason recorded"))
        )
        for row in run.records
        if outcome(row) == GIVEN_UP
    )
    return found.most_common()


def outcomes_picture(runs: Sequence[ReportedRun]) -> Picture:
    """Return the figure of all runs of one norm that have records."""
    import plotly.graph_objects as go

    shown = [run for run in runs if run.records]
    counts = {run.number: Counter(outcome(row) for row in run.records) for run in shown}
    present = [name for name in SHADES if any(found[name] for found in counts.values())]
    figure = go.Figure(
        layout=layout(
            barmode="stack",
            bargap=0.35,
            hovermode="closest",
            showlegend=True,
            legend={
                "orientation": "h",
                "traceorder": "normal",
                "yanchor": "bottom",
                "y": 1.0,
                "x": 0,
                "xanchor": "left",
            },
            xaxis=axis("images, %", range=[0, 100], showgrid=True, showline=False),
            yaxis=axis(
                "",
                autorange="reversed",
                type="category",
                showline=False,
                ticks="",
                ticklabelstandoff=6,
            ),
            margin={"l": 20, "r": 14, "t": 40, "b": 48},
        )
    )
    for name in present:
        figure.add_bar(**_bar(name, shown, counts))
    return Picture(
        key=f"outcomes-{shown[0].norm}",
        title="Abstentions",
        caption="What became of the images. An abstention counts as wrong at every radius.",
        alt=_alt(shown, counts, present),
        figure=plain(figure),
        height=130 + 44 * len(shown),
    )


def _bar(
    name: str, runs: Sequence[ReportedRun], counts: Mapping[int, Counter[str]]
) -> dict[str, Any]:
    shade = SHADES[name]
    found = [counts[run.number][name] for run in runs]
    return {
        "orientation": "h",
        "name": name,
        "y": [literal(run.title) for run in runs],
        "x": [100 * k / len(run.records) for k, run in zip(found, runs, strict=True)],
        "text": [f"{k:,}" if k else "" for k in found],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "textfont": {"color": "white" if name == RIGHT else INK},
        "constraintext": "inside",
        "marker": {
            "color": shade.colour,
            "line": {"color": "white", "width": 1},
            "pattern": {
                "shape": shade.pattern,
                "fillmode": "overlay",
                "fgcolor": shade.stripes,
                "fgopacity": 0.45,
                "size": 7,
                "solidity": 0.2,
            },
        },
        "customdata": found,
        "hovertemplate": "%{customdata:,} images (%{x:.1f} %)",
        "meta": {"part": "outcome"},
    }


def _alt(
    runs: Sequence[ReportedRun], counts: Mapping[int, Counter[str]], present: Sequence[str]
) -> str:
    said = [
        f"{run.name}: " + ", ".join(f"{counts[run.number][name]:,} {name}" for name in present)
        for run in runs
    ]
    return "Outcomes by run. " + "; ".join(said) + "."
