"""Certified accuracy against radius, as exact step curves.

Colours are Okabe and Ito's (2008), told apart by colour-blind readers; line styles and markers tell
the curves apart in black and white. matplotlib is imported on use, without its global state.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deqcert.errors import DeqcertError
from deqcert.results.cohen import PUBLISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INSTALL_HINT = 'plots need matplotlib: pip install "deqcert[report]"'
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
UNGUARANTEED_COLOUR, UNGUARANTEED_LINE = "#767676", (0, (1, 1.2))
SYMBOLS = {"L2": r"$\ell_2$", "Linf": r"$\ell_\infty$"}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "pdf.fonttype": 42,  # text stays text: searchable, and accepted by conferences
}

_FEW_CURVES = 2
_LEGEND_LINES = 2
"""Lines of a legend that a figure has room for."""
_LINE_INCHES = 0.21
_LEGEND_LETTERS = 62
"""Width of a legend of one column: longer names are folded."""


class MissingMatplotlibError(DeqcertError):
    """matplotlib is not installed; the message says how to get it."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run's certified accuracy.

    Attributes:
        name: Name in the legend.
        guarantee: Guarantee of the run; ``none`` is said in the legend.
        correct_radii: Radii of the correct predictions, pixel units, in any order.
        images: All images of the run.
    """

    name: str
    guarantee: str
    correct_radii: tuple[float, ...]
    images: int

    @property
    def label(self) -> str:
        """The legend's text."""
        # A dollar sign would start mathematics, a leading underscore hide the entry.
        name = self.name.replace("$", r"\$")
        name = f" {name}" if name.startswith("_") else name
        note = {"none": " (no guarantee)", PUBLISHED: " (as published)"}.get(self.guarantee, "")
        return name + note

    def at(self, radius: float) -> float:
        """Certified accuracy at `radius`, in [0, 1]."""
        return sum(found >= radius for found in self.correct_radii) / self.images


def steps(curve: Curve, *, end: float) -> tuple[list[float], list[float]]:
    """Return corners (radius, accuracy in percent) of the curve from 0 to `end`.

    The accuracy holds up to and including a certified radius and drops after it: each value belongs
    to the interval that ends at its radius (matplotlib's ``steps-pre``).
    """
    radii = sorted(curve.correct_radii)
    start = 100 * len(radii) / curve.images
    levels = [100 * (len(radii) - k) / curve.images for k in range(len(radii))]
    return [0.0, *radii, end], [start, *levels, 0.0]


def certified_accuracy_figure(
    curves: Sequence[Curve], *, radii: Sequence[float], title: str, norm: str = "L2"
) -> Figure:
    """Return the figure of all `curves`, all of one `norm`, with markers at the table's `radii`.

    Raises:
        MissingMatplotlibError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingMatplotlibError(INSTALL_HINT) from error
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        end = _end(curves, radii)
        for position, curve in enumerate(curves):
            _draw(axes, curve, position, radii=[r for r in radii if r <= end], end=end)
        _dress(axes, end=end, title=title, norm=norm)
    return figure


def encode(figure: Figure, kind: str) -> bytes:
    """Return the file of `figure` as ``png`` or ``pdf``; the same figure gives the same bytes."""
    import matplotlib as mpl

    stream = io.BytesIO()
    dated = {"CreationDate": None} if kind == "pdf" else {}
    with mpl.rc_context(STYLE):
        figure.savefig(stream, format=kind, dpi=200, metadata=dated)
    return stream.getvalue()


def _end(curves: Sequence[Curve], radii: Sequence[float]) -> float:
    """Where the radius axis ends: past the last step, and not far past it."""
    largest = max((max(curve.correct_radii, default=0.0) for curve in curves), default=0.0)
    return 1.06 * largest if largest > 0 else max(radii) or 1.0


def _draw(axes: Axes, curve: Curve, position: int, *, radii: Sequence[float], end: float) -> None:
    """Draw one curve with its markers."""
    claimed = curve.guarantee != "none"
    colour = COLOURS[position % len(COLOURS)] if claimed else UNGUARANTEED_COLOUR
    line = LINES[position % len(LINES)] if claimed else UNGUARANTEED_LINE
    x, y = steps(curve, end=end)
    marked = [radius for radius in radii if curve.at(radius) > 0]
    axes.step(x, y, where="pre", color=colour, linestyle=line, linewidth=1.8)
    axes.plot(
        marked,
        [100 * curve.at(radius) for radius in marked],
        linestyle="none",
        marker=MARKERS[position % len(MARKERS)],
        markersize=5.5,
        markerfacecolor="white",
        markeredgecolor=colour,
        markeredgewidth=1.4,
        clip_on=False,
        in_layout=False,
        zorder=3,
    )
    axes.plot(
        [],
        [],
        color=colour,
        linestyle=line,
        linewidth=1.8,
        marker=MARKERS[position % len(MARKERS)],
        markersize=5.5,
        markerfacecolor="white",
        markeredgewidth=1.4,
        label=curve.label,
    )


def _dress(axes: Axes, *, end: float, title: str, norm: str) -> None:
    """Set ranges, labels with units, grid and legend."""
    axes.set_xlim(0, end)
    axes.set_ylim(0, 100)
    axes.set_xlabel(rf"{SYMBOLS[norm]} radius $r$ (pixel units, pixels in [0, 1])")
    axes.set_ylabel("certified accuracy at $r$ (%)")
    axes.set_title(title, loc="left")
    axes.grid(axis="y", color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    if len(axes.get_legend_handles_labels()[1]) <= _FEW_CURVES:
        axes.legend(frameon=False, loc="best", handlelength=3.6)
    else:  # no corner is free of that many curves
        legend_below(axes.get_figure(root=True), handlelength=3.6)


def legend_below(figure: Figure | None, **options: Any) -> None:
    """Add a legend below the axes, in one column where two are too wide; the figure grows with it.

    Args:
        figure: A figure with a constrained layout, its curves drawn.
        options: As of matplotlib's `legend`.
    """
    assert figure is not None
    options = {"frameon": False, "loc": "outside lower center", **options}
    height = figure.get_figheight()
    legend = figure.legend(ncols=2, **options)
    _make_room(figure, height, -(-len(legend.get_texts()) // 2))
    if legend.get_window_extent().width > figure.bbox.width:
        legend.remove()
        legend = figure.legend(ncols=1, **options)
        folded = [
            textwrap.fill(text.get_text(), _LEGEND_LETTERS, drop_whitespace=False)
            for text in legend.get_texts()
        ]
        for text, lines in zip(legend.get_texts(), folded, strict=True):
            text.set_text(lines)
        _make_room(figure, height, sum(lines.count("\n") + 1 for lines in folded))


def _make_room(figure: Figure, height: float, lines: int) -> None:
    """Lay out a figure, higher than it was (inches) where a legend has many lines."""
    figure.set_figheight(height + _LINE_INCHES * max(0, lines - _LEGEND_LINES))
    figure.draw_without_rendering()
