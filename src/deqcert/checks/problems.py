"""What a verification finds: problems that name their place, and checks of chosen draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_LONGEST = 64


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing in a run folder that is not as it must be.

    Attributes:
        file: File of the run folder.
        line: Line in that file, from 1; None where no single line is meant.
        index: Image index of the record, or None.
        field: Field of the record or of the configuration, dots for nested ones.
        recorded: The value found.
        recomputed: The value, or the rule in words, that was expected.
        why: Why it matters, in a sentence.
    """

    file: str
    line: int | None = None
    index: int | None = None
    field: str
    recorded: Any
    recomputed: Any
    why: str

    @property
    def place(self) -> str:
        """Where the problem is, in words."""
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return where if self.index is None else f"{where} (image {self.index})"


@dataclass(frozen=True)
class Place:
    """The record a check is looking at.

    Attributes:
        file: File of the run folder.
        line: Line in that file, from 1.
        index: Image index, or None where the line has none that could be read.
    """

    file: str
    line: int | None = None
    index: int | None = None

    def problem(self, field: str, recorded: Any, recomputed: Any, why: str) -> Problem:
        """Return a problem at this place."""
        return Problem(
            file=self.file,
            line=self.line,
            index=self.index,
            field=field,
            recorded=recorded,
            recomputed=recomputed,
            why=why,
        )

    def expect(self, field: str, recorded: Any, expected: Any, why: str) -> Iterator[Problem]:
        """Yield a problem unless the value is the expected one."""
        if recorded != expected:
            yield self.problem(field, recorded, expected, why)


@dataclass(frozen=True, kw_only=True)
class DrawCheck:
    """What some draws of one record say about it.

    Attributes:
        index: Image index.
        kind: ``counts``: some of the recorded draws were made again and the recorded counts
            tested against them; ``claim``: the class probability was tested on fresh noise.
        draws: Draws solved.
        found: Draws of them labelled with the selected class.
        level: Significance level of the test that concerns the selected class.
        p_value: Its p-value; a problem is reported at or below `level`.
        conclusion: What the check could have found, in a sentence.
    """

    index: int
    kind: str
    draws: int
    found: int
    level: float
    p_value: float
    conclusion: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What `verify` found.

    Attributes:
        path: The run folder.
        records: Whole records read.
        problems: All problems; empty for a clean run.
        notes: What was not checked, and what a reader should know.
        replayed: Indices of the images whose whole record was made again.
        draw_checks: Checks of chosen draws.
        seed: Seed of the verifier's own choices, or None where nothing was chosen.
    """

    path: str
    records: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    replayed: tuple[int, ...] = ()
    draw_checks: tuple[DrawCheck, ...] = ()
    seed: int | None = None

    @property
    def clean(self) -> bool:
        """True where no problem was found."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON types."""
        return {"clean": self.clean, **dataclasses.asdict(self)}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console, options
        if self.problems:
            yield _problem_table(self.problems)
        if self.draw_checks:
            yield _draw_table(self.draw_checks)
        for note in self.notes:
            yield Text(f"note: {note}")
        yield Text(self._verdict(), style="bold red" if self.problems else "bold green")

    def _verdict(self) -> str:
        done = f"{self.records} records checked"
        if self.replayed:
            done += f", {len(self.replayed)} replayed whole"
        if self.draw_checks:
            done += f", draws of {len(self.draw_checks)} tested"
        found = f"{len(self.problems)} problem{'s' * (len(self.problems) != 1)}"
        return f"{self.path}: {done}: {found if self.problems else 'clean'}"


def _problem_table(problems: tuple[Problem, ...]) -> Table:
    table = Table(show_lines=True)
    for name in ("place", "field", "recorded", "recomputed", "why it matters"):
        table.add_column(name, overflow="fold")  # nothing of what was found is left out
    for found in problems:
        cells = (found.place, found.field, _short(found.recorded), _short(found.recomputed))
        table.add_row(*map(Text, cells), Text(found.why))
    return table


def _draw_table(checks: tuple[DrawCheck, ...]) -> Table:
    table = Table("image", "check", "draws", "of the class", "p-value", "conclusion", box=None)
    for check in checks:
        table.add_row(
            str(check.index),
            check.kind,
            f"{check.draws:,}",
            f"{check.found:,}",
            f"{check.p_value:.2g}",
            Text(check.conclusion),
        )
    return table


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
