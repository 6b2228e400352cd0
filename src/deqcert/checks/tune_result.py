"""What tuning a reference classifier found, as a table and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One reference classifier, measured on images that had no say in choosing it.

    Attributes:
        reference: Its solver, as `Certifier` and ``--reference`` take it.
        evaluations: Cell evaluations of a draw, mean.
        classifications: Looks at the logits of a draw, mean; 1 without exits.
        cost: Both together, in cell evaluations.
        differing: Share of draws with another label than the long solve.
        differing_upper: Upper end of its two-sided 95 % confidence interval, draws taken as
            independent.
        accuracy: Share of draws of the right class.
    """

    reference: str
    evaluations: float
    classifications: float
    cost: float
    differing: float
    differing_upper: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The references found.

    Attributes:
        against: The long solver.
        sigma: Noise level, pixel units.
        precision: Of all solves.
        images: Images, of which every other one chose and the rest measured.
        copies: Noisy copies of each.
        look_cost: Operations of a classification, in cell evaluations.
        accuracy: Share of draws that the long solve gets right.
        plain: 1, 2, ... steps without exits.
        chosen: With or without exits, the cheapest for each limit; each once.
        limits: Shares of differing labels allowed.
        chosen_for: The reference chosen for each of them, None where nothing kept to it.
    """

    against: str
    sigma: float
    precision: str
    images: int
    copies: int
    look_cost: float
    accuracy: float
    plain: tuple[Choice, ...]
    chosen: tuple[Choice, ...]
    limits: tuple[float, ...]
    chosen_for: tuple[str | None, ...]

    def reference(self, differing: float) -> str | None:
        """Return the cheapest reference found for the largest limit that is at most `differing`."""
        kept = [
            (limit, found)
            for limit, found in zip(self.limits, self.chosen_for, strict=True)
            if limit <= differing and found is not None
        ]
        return max(kept)[1] if kept else None

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return asdict(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console, options
        table = Table()
        for name in ("reference", "evaluations", "looks", "cost", "other labels", "right"):
            justify = "left" if name == "reference" else "right"
            table.add_column(name, justify=justify, overflow="fold")
        for choice in self.plain:
            table.add_row(*_cells(choice))
        table.add_section()
        for choice in self.chosen:
            table.add_row(*_cells(choice), style="bold")
        yield table
        yield Text(
            f"other labels: than {self.against}, which is right in {100 * self.accuracy:.1f} %, "
            f"with the upper end of the 95 % interval; on {self.images // 2:,} images x "
            f"{self.copies} copies that did not choose, sigma {self.sigma:g}, {self.precision}. "
            f"A look at the logits costs {self.look_cost:.2f} cell evaluations."
        )
        for limit, found in zip(self.limits, self.chosen_for, strict=True):
            yield Text(f"for at most {100 * limit:g} % other labels: {self._measured(found)}")

    def _measured(self, reference: str | None) -> str:
        """Return the reference that was chosen, with what the other half of the images says."""
        if reference is None:
            return "nothing kept to it"
        shares = {choice.reference: choice.differing for choice in (*self.plain, *self.chosen)}
        return f"{reference} (measured {100 * shares[reference]:.2f} %)"


def _cells(choice: Choice) -> tuple[str, ...]:
    return (
        choice.reference,
        f"{choice.evaluations:.2f}",
        f"{choice.classifications:.2f}",
        f"{choice.cost:.2f}",
        f"{100 * choice.differing:.2f} (<{100 * choice.differing_upper:.2f}) %",
        f"{100 * choice.accuracy:.1f} %",
    )
