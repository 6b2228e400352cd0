"""The pictures of a study: certified accuracy against L2 radius, and histograms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from deqcert.results import plots
from deqcert.results.summary import correct_radii
from experiments.tables import Results, audited, differences

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pictures(results: Results) -> dict[str, bytes]:
    """Return the study's pictures as PNG, by file name; none of rows without records.

    Curves are drawn of rows about the same images only: most rows' images.
    """
    found: dict[str, bytes] = {}
    for norm, name in (("L2", "curves.png"), ("Linf", "curves-linf.png")):
        figure = _curves(results, norm)
        if figure is not None:
            found[name] = plots.encode(figure, "png")
    titles = {line.name: line.title.replace("`", "") for line in results.lines}
    gap = {titles[name]: gaps.values for name, gaps in audited(results).items()}
    if gap:
        found["gaps.png"] = plots.encode(_histogram(gap, "gap $p_m$ of an image"), "png")
    pairs = {titles[pair.serialized]: found.values for pair, found in differences(results)}
    if any(pairs.values()):
        label = "relative radius difference of an image"
        found["rrd.png"] = plots.encode(_histogram(pairs, label), "png")
    return found


def _curves(results: Results, norm: str) -> Figure | None:
    """Return the curves of one norm, or None where no row of that norm has an accuracy."""
    lines = [line for line in results.lines if line.norm == norm and line.accuracy is not None]
    if not lines:
        return None
    images = {
        line.name: frozenset(record["index"] for record in results.records[line.name])
        for line in lines
    }
    usual = Counter(images.values()).most_common(1)[0][0]
    curves = [
        plots.Curve(
            name=line.title.replace("`", ""),
            guarantee="none" if "none" in (line.guarantees or {}) else "some",
            correct_radii=tuple(correct_radii(results.records[line.name])),
            images=line.images,
        )
        for line in lines
        if images[line.name] == usual
    ]
    study = results.study
    radii = study.radii if norm == "L2" else study.radii_linf
    return plots.certified_accuracy_figure(curves, radii=radii, title=study.title, norm=norm)


def _histogram(columns: Mapping[str, Sequence[float]], label: str) -> Figure:
    """Return a histogram with bins of 0.05, the shares of each row side by side."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        shown = {name: values for name, values in columns.items() if len(values)}
        axes.hist(
            [[min(value, 0.999) for value in values] for values in shown.values()],
            bins=[0.05 * k for k in range(21)],
            weights=[[100 / len(values)] * len(values) for values in shown.values()],
            color=[plots.COLOURS[k % len(plots.COLOURS)] for k in range(len(shown))],
            label=[f"{name} ({len(values)} images)" for name, values in shown.items()],
        )
        axes.set_xlim(0, 1)
        axes.set_xlabel(label)
        axes.set_ylabel("images (%)")
        plots.legend_below(figure)
    return figure
