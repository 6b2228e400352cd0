"""Progress of a check in the terminal; silent in files and pipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def console_steps(title: str, console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Give a function ``watch(done, total, what)`` that shows a bar while the block runs."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = progress.add_task(title, total=None)

    def watch(done: int, total: int, what: str) -> None:
        progress.update(task, completed=done, total=total, description=f"{title} {what}".strip())

    with progress:
        yield watch
