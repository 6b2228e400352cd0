"""One table for the terminal, Markdown and LaTeX: a column per run, a line per number.

All runs of a table certify in the same norm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

from rich.table import Table
from rich.text import Text

from deqcert.certificate import DETERMINISTIC
from deqcert.results.cohen import PUBLISHED
from deqcert.results.summary import L2, LEVELS, Summary

NO_GUARANTEE = "NONE"
AS_PUBLISHED = "as published, not checked"
ABSENT = "-"
PADDING = 4  # characters between columns


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        label: What the numbers are, with their unit.
        cells: One per run.
        group: Lines of one group stand together.
    """

    label: str
    cells: tuple[str, ...]
    group: str


def lines(summaries: Sequence[Summary]) -> list[Line]:
    """Return the lines of the table; every run has the same norm and the same radii."""

    def line(group: str, label: str, cell: Callable[[Summary], str]) -> Line:
        return Line(label, tuple(cell(summary) for summary in summaries), group)

    accuracies = [
        line("accuracy", f"certified accuracy at {radius}", _accuracy_at(position))
        for position, radius in enumerate(radius_names(summaries[0]))
    ]
    found = [
        line("claim", "method", lambda s: s.method),
        line("claim", "guarantee", _guarantee),
        line("claim", "noise sigma", _known(lambda s: s.sigma, "g")),
        line("claim", "draws n per image", _known(lambda s: s.n, ",")),
        line("claim", "images", lambda s: f"{s.images:,}"),
        *accuracies,
        line("accuracy", "average certified radius", _average_radius),
        line("accuracy", "abstentions", lambda s: f"{s.abstentions:,} ({_share(s)})"),
        line("accuracy", "accuracy of one noisy draw", _percent(lambda s: s.accuracy_under_noise)),
        line("cost", "cell evaluations per image", _known(lambda s: s.cell_evaluations, ",.0f")),
        line("cost", "seconds per image", _known(lambda s: s.seconds, ".3g")),
        line("cost", "audits drawn", _known(lambda s: s.audits, ",")),
        line("cost", "disagreements found", _known(lambda s: s.disagreements, ",")),
        line("cost", "unconverged solves", _percent(lambda s: s.unconverged, decimals=2)),
    ]
    return [line for line in found if not _is_idle(line, summaries)]


def _is_idle(line: Line, summaries: Sequence[Summary]) -> bool:
    """Whether a line says nothing: about draws where no run has any, or the names once more."""
    if line.label == "method":
        # A run folder named after its method need not say it twice.
        return all(summary.name == summary.method for summary in summaries)
    unasked = all(summary.guarantee in (DETERMINISTIC, PUBLISHED) for summary in summaries)
    return unasked and all(cell == ABSENT for cell in line.cells)


def heading(summaries: Sequence[Summary]) -> str:
    """Return what a table of these runs is headed with where there are several."""
    return f"Certificates in {summaries[0].norm}"


def radius_names(summary: Summary) -> list[str]:
    """Return the radii of a summary as a table names them."""
    return named_radii(summary.radii, summary.norm)


def named_radii(radii: Sequence[float], norm: str) -> list[str]:
    """Return radii as a table names them: Linf ones in levels of a pixel where they are."""
    if norm == L2:
        return [f"r = {radius}" for radius in aligned(radii)]
    names = aligned(radii)
    for position, radius in enumerate(radii):
        levels = round(radius * LEVELS)
        if levels and abs(radius * LEVELS - levels) < 1e-9:
            names[position] = f"{levels}/{LEVELS}"
        elif radius == 0.0:
            names[position] = "0"
    return [f"{norm} r = {name}" for name in names]


def terminal(summaries: Sequence[Summary], *, width: int) -> list[Table]:
    """Return the table for a terminal of `width` characters: side by side as many runs as fit."""
    return [_block(part) for part in _parts(summaries, width)]


def _parts(summaries: Sequence[Summary], width: int) -> list[list[Summary]]:
    """Split the runs so that each part's table fits into `width`, at least one run in each."""
    found = lines(summaries)
    left = width - max(len(line.label) for line in found)
    parts: list[list[Summary]] = []
    room = 0
    for position, summary in enumerate(summaries):
        needed = PADDING + max(len(summary.name), *(len(line.cells[position]) for line in found))
        if not parts or needed > room:
            parts.append([])
            room = left
        parts[-1].append(summary)
        room -= needed
    return parts


def _block(summaries: Sequence[Summary]) -> Table:
    """Return the table of a few runs."""
    table = Table(box=None, pad_edge=False, padding=(0, PADDING // 2), header_style="bold")
    table.add_column("")
    for summary in summaries:
        table.add_column(Text(summary.name), justify="right")
    group = ""
    for line in lines(summaries):
        if line.group != group and group:
            table.add_row()
        group = line.group
        table.add_row(Text(line.label), *(_styled(cell) for cell in line.cells))
    return table


def markdown(summaries: Sequence[Summary], notes: Sequence[str] = ()) -> str:
    """Return the table as GitHub-flavoured Markdown, the notes below it."""
    rows = [
        _markdown_row(["", *(summary.name for summary in summaries)]),
        _markdown_row(["---", *("---:" for _ in summaries)]),
        *(
            _markdown_row([line.label, *map(_loud_markdown, line.cells)])
            for line in lines(summaries)
        ),
    ]
    return "\n".join([*rows, *(f"\n{_markdown_text(note)}" for note in notes)]) + "\n"


def latex(summaries: Sequence[Summary], notes: Sequence[str] = ()) -> str:
    """Return the table as a LaTeX ``tabular`` (package booktabs), the notes as comments."""
    header = " & ".join(["", *(_latex_text(summary.name) for summary in summaries)])
    body = [rf"\begin{{tabular}}{{l{'r' * len(summaries)}}}", r"\toprule", header + r" \\"]
    group = ""
    for line in lines(summaries):
        if line.group != group:
            body.append(r"\midrule")
            group = line.group
        cells = [_latex_label(line.label), *map(_loud_latex, line.cells)]
        body.append(" & ".join(cells) + r" \\")
    body += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*(f"% {note}" for note in notes), *body]) + "\n"


def aligned(numbers: Sequence[float]) -> list[str]:
    """Return `numbers` with as many decimals as the longest of them needs.

    >>> aligned([0.0, 0.25, 1.5])
    ['0.00', '0.25', '1.50']
    """
    decimals = max(len(f"{number:.6g}".partition(".")[2]) for number in numbers)
    return [f"{number:.{decimals}f}" for number in numbers]


def percent(share: float) -> str:
    """Return a share in [0, 1] as percent with one decimal."""
    return f"{100 * share:.1f} %"


def _accuracy_at(position: int) -> Callable[[Summary], str]:
    """Return the cell of the radius at `position`: the share, and its lower bound in brackets."""

    def cell(summary: Summary) -> str:
        plain = percent(summary.certified_accuracy[position])
        if summary.guarantee in (DETERMINISTIC, PUBLISHED):
            return plain  # nothing can fail, or nothing is claimed: no bound besides
        bounds = summary.high_probability_accuracy
        return f"{plain} ({ABSENT if bounds is None else percent(bounds[position])})"

    return cell


def _known(value: Callable[[Summary], float | None], form: str) -> Callable[[Summary], str]:
    """Return the cell of a number in this form, or of its absence."""

    def cell(summary: Summary) -> str:
        found = value(summary)
        return ABSENT if found is None else f"{found:{form}}"

    return cell


def _percent(
    value: Callable[[Summary], float | None], decimals: int = 1
) -> Callable[[Summary], str]:
    """Return the cell of a share, or of its absence."""

    def cell(summary: Summary) -> str:
        found = value(summary)
        return ABSENT if found is None else f"{100 * found:.{decimals}f} %"

    return cell


def average_radius(value: float, norm: str) -> str:
    """Return an average of certified radii, rounded down as they are."""
    decimals = 3 if norm == L2 else 5  # Linf radii are of the order of a pixel's level
    return str(Decimal(value).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_FLOOR))


def _average_radius(summary: Summary) -> str:
    return average_radius(summary.average_certified_radius, summary.norm)


def _guarantee(summary: Summary) -> str:
    """The guarantee of all images, or how many have which."""
    if summary.guarantee == "none":
        return NO_GUARANTEE
    if summary.guarantee == PUBLISHED:
        return AS_PUBLISHED
    if len(summary.guarantees) == 1:
        return summary.guarantee
    return ", ".join(f"{count:,} {name}" for name, count in summary.guarantees.items())


def _share(summary: Summary) -> str:
    return percent(summary.abstentions / summary.images)


def _styled(cell: str) -> Text:
    return Text(cell, style="bold red" if cell == NO_GUARANTEE else "")


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_text(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


def _loud_markdown(cell: str) -> str:
    return f"**{cell}**" if cell == NO_GUARANTEE else _markdown_text(cell)


def _latex_text(text: str) -> str:
    """Return `text` with LaTeX's special characters escaped."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: "\\" + character for character in "&%$#_{}"},
    }
    return "".join(special.get(character, character) for character in text)


def _latex_label(label: str) -> str:
    """Return a line's label with its symbols in mathematics."""
    text = _latex_text(label).replace("sigma", r"$\sigma$").replace("draws n", "draws $n$")
    text = text.replace("Linf", r"$\ell_\infty$")
    return re.sub(r"r = ([\d./]+)", r"$r = \1$", text)


def _loud_latex(cell: str) -> str:
    return rf"\textbf{{{cell}}}" if cell == NO_GUARANTEE else _latex_text(cell)
