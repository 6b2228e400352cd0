"""What an attack found: shares by distance, as a table and a plot."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from deqcert.checks.judge import ABSTAINED, FELL
from deqcert.results.files import write_atomically
from deqcert.results.plots import (
    COLOURS,
    INSTALL_HINT,
    LINES,
    MARKERS,
    STYLE,
    MissingMatplotlibError,
    encode,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "smooth-pgd": "smooth-PGD",
    "pgd": "PGD",
    "random": "random direction",
    "base": "classifier without noise, PGD",
}
CAVEAT = "an empirical check and no proof: attacks that fail say nothing about other attacks"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One attack at one distance, over all images.

    Attributes:
        images: Images attacked.
        fell: Images at which another class was returned with confidence.
        abstained: Images at which none was.
        share: Mean share of the noisy copies that still have the certified class.
        length: Mean length of the shifts, pixel units: pixels in [0, 1] may cut them short.
    """

    images: int
    fell: int
    abstained: int
    share: float
    length: float


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What `attack_run` found.

    Attributes:
        path: Folder of the results.
        guarantee: Guarantee of the attacked certificates.
        gradient: How gradients were taken: ``unrolled`` or ``implicit``.
        spec: Settings, by the names of `AttackSpec`; those that mean something.
        seed: Seed of all noise.
        images: One table per image: index, prediction, radius, clean share, outcomes.
        norm: Norm of the shifts, ``L2`` or ``Linf``.
    """

    path: str
    guarantee: str
    gradient: str
    spec: dict[str, Any]
    seed: int
    images: tuple[dict[str, Any], ...]
    norm: str = "L2"

    @property
    def names(self) -> dict[str, str]:
        """The attacks that were made: key and name."""
        made = {outcome["attack"] for image in self.images for outcome in image["outcomes"]}
        return {key: name for key, name in NAMES.items() if key in made}

    @property
    def judgement(self) -> str:
        """By whom an image is judged, and how surely."""
        if "n" not in self.spec:
            return "each judgement a proof of the class at the exact equilibrium"
        return (
            f"each judgement by {self.spec['n']:,} draws, wrong with probability at most "
            f"{self.spec['alpha']:g}"
        )

    @property
    def fallen_inside(self) -> tuple[int, ...]:
        """Images whose smoothed class fell at a distance of at most 1: certificates refuted."""
        return tuple(
            image["index"]
            for image in self.images
            if any(
                o["outcome"] == FELL and o["distance"] <= 1 and o["attack"] != "base"
                for o in image["outcomes"]
            )
        )

    def cell(self, attack: str, distance: float) -> Cell:
        """Return what one attack did at one distance.

        Args:
            attack: ``smooth-pgd``, ``pgd``, ``random``, or ``base``: the classifier without noise
                at the images of ``pgd``.
            distance: One of the distances, in units of the radius.
        """
        found = [
            outcome
            for image in self.images
            for outcome in image["outcomes"]
            if outcome["attack"] == attack and outcome["distance"] == distance
        ]
        return Cell(
            images=len(found),
            fell=sum(o["outcome"] == FELL for o in found),
            abstained=sum(o["outcome"] == ABSTAINED for o in found),
            share=fmean(o["share"] for o in found) if found else 0.0,
            length=fmean(o["length"] for o in found) if found else 0.0,
        )

    def to_json(self) -> dict[str, Any]:
        """Return summary and images as plain JSON types."""
        summary = [
            {"attack": name, "distance": d, **dataclasses.asdict(self.cell(name, d))}
            for name in self.names
            for d in self.spec["distances"]
        ]
        inside = {"fallen_inside": list(self.fallen_inside), "caveat": CAVEAT}
        return {**inside, "summary": summary, **dataclasses.asdict(self)}

    def write_plot(self) -> list[Path]:
        """Write ``attack.png`` and ``attack.pdf`` beside the results; return their paths.

        Raises:
            MissingMatplotlibError: matplotlib is not installed.
        """
        figure = fallen_figure(self)
        paths = []
        for kind in ("png", "pdf"):
            path = Path(self.path) / f"attack.{kind}"
            write_atomically(path, encode(figure, kind))
            paths.append(path)
        return paths

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console, options
        if not self.images:
            yield Text(f"{self.path}: the run has no certified image")
            return
        yield _table(self)
        what = "share of noisy copies of the class" if "n" in self.spec else "share that held"
        yield Text(f"each cell: images that fell (that abstain), {what}")
        yield Text(
            f"{len(self.images)} certified image{'s' if len(self.images) > 1 else ''} "
            f"(guarantee: {self.guarantee}, {self.norm}); "
            f"{self.judgement}; gradients {self.gradient}; seed {self.seed}"
        )
        fallen = self.fallen_inside
        if fallen:
            shown = ", ".join(map(str, fallen[:10]))
            yield Text(f"FELL INSIDE their radius: images {shown}", style="bold red")
        else:
            yield Text("none fell inside its radius", style="bold green")
        yield Text(f"note: {CAVEAT}")


def _table(attack: Attack) -> Table:
    """One line per distance: how many fell, how many were given up, what share is left."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("distance / radius", *attack.names.values()):
        # Only headings are broken into lines: four attacks fit into 80 columns.
        table.add_column(Text("\n".join(wrap(name, 14))), justify="right", no_wrap=True)
    for distance in attack.spec["distances"]:
        cells = []
        for name in attack.names:
            cell = attack.cell(name, distance)
            text = f"{cell.fell} ({cell.abstained}), {100 * cell.share:.1f} %"
            inside = distance <= 1 and name != "base" and cell.fell > 0
            cells.append(Text(text, style="bold red" if inside else ""))
        table.add_row(f"{distance:g}" + (" (inside)" if distance <= 1 else ""), *cells)
    return table


def fallen_figure(attack: Attack) -> Figure:
    """Return the share of fallen images against the distance in units of the radius.

    Raises:
        MissingMatplotlibError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingMatplotlibError(INSTALL_HINT) from error
    distances = list(attack.spec["distances"])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        end = 1.05 * max(*distances, 1.0)
        axes.axvspan(0, 1, color="#EFEFEF", label="inside the certified radius")
        for position, (key, name) in enumerate(attack.names.items()):
            cells = [attack.cell(key, distance) for distance in distances]
            axes.plot(
                distances,
                [100 * cell.fell / max(1, cell.images) for cell in cells],
                label=name,
                color=COLOURS[position],
                linestyle=LINES[position],
                marker=MARKERS[position],
                markerfacecolor="white",
                markeredgewidth=1.4,
                clip_on=False,
            )
        axes.set_xlim(0, end)
        axes.set_ylim(0, 100)
        axes.set_xlabel(f"length of the shift / certified radius ({attack.norm})")
        axes.set_ylabel("images that fell (%)")
        axes.set_title(f"certified images: {len(attack.images)} (no proof)", loc="left")
        axes.grid(axis="y", color="#E3E3E3", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, loc="best")
    return figure
