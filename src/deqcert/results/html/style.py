"""What all figures of a page share, and how their numbers become JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deqcert.results.summary import L2

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FONT = (
    "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', "
    "'Noto Sans', 'Liberation Sans', Arial, sans-serif"
)
INK, MUTED, GRID = "#1c1c1c", "#595959", "#e4e4e4"
DECIMALS = {L2: 4, "Linf": 6}
"""Decimals of radii in figures: below what anybody can see, and never rounded up."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One figure of a page.

    Attributes:
        key: Its id on the page.
        title: What it shows, as a heading.
        caption: How to read it.
        alt: What it shows, in words, for those who do not see it.
        figure: Data and layout as plotly reads them.
        more: What the page's script needs besides.
        height: Pixels.
    """

    key: str
    title: str
    caption: str
    alt: str
    figure: Mapping[str, Any] = field(repr=False)
    more: Mapping[str, Any] = field(default_factory=dict, repr=False)
    height: int = 360

    @property
    def runs(self) -> set[int]:
        """Numbers of the runs it shows one by one."""
        return {trace["meta"]["run"] for trace in self.figure["data"] if "run" in trace["meta"]}


def plain(figure: Figure) -> dict[str, Any]:
    """Return `figure` as plain JSON types, without a template."""
    figure.update_layout(template="none")
    return json.loads(figure.to_json() or "{}")


def layout(**changes: Any) -> dict[str, Any]:
    """Return the layout of a figure: room, fonts and colours of the page, then `changes`."""
    return {
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 58, "r": 14, "t": 10, "b": 52},
        "showlegend": False,
        "hoverlabel": {"font": {"family": FONT, "size": 12}, "bgcolor": "white"},
        **changes,
    }


def axis(title: str, **changes: Any) -> dict[str, Any]:
    """Return an axis with its title; units belong into the title."""
    return {
        "title": {"text": title, "standoff": 10},
        "zeroline": False,
        "showgrid": False,
        "showline": True,
        "linecolor": "#8a8a8a",
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "#8a8a8a",
        "gridcolor": GRID,
        "automargin": True,
        **changes,
    }


def percent_axis(title: str, **changes: Any) -> dict[str, Any]:
    """Return an axis from 0 to 100 %, with lines across the figure."""
    return axis(
        title,
        **{"range": [0, 101], "showgrid": True, "showline": False, "ticks": "", **changes},
    )


def faint(colour: str, opacity: float) -> str:
    """Return ``#rrggbb`` as a translucent colour."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def floored(
    values: Sequence[float] | NDArray[np.float64],  # (*batch,)
    decimals: int,
) -> NDArray[np.float64]:  # (*batch,)
    """Return `values` rounded down to `decimals`, none above its value.

    >>> floored([0.29, 0.99999], 2).tolist()
    [0.29, 0.99]
    """
    values = np.asarray(values, dtype=np.float64)
    scale = 10.0**decimals
    found = np.floor(values * scale + 0.5) / scale
    return np.where(found > values, np.round(found - 1 / scale, decimals), found)


def literal(name: str) -> str:
    """Return `name` for a plotly text, which reads a few tags and entities: it shows as it is."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
