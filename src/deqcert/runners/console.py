"""Progress of a run in the terminal: bars for people, plain lines for files and pipes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from deqcert.runners.dataset import Watch

_LINES = 16
"""Workers that have a line of their own in the terminal."""


@contextmanager
def console_watch(title: str, console: Console) -> Iterator[Watch]:
    """Show a run's progress, rate and time left while the block runs."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24 if console.width >= 90 else 8),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    images = progress.add_task(title, total=None)
    workers: dict[str, TaskID] = {}  # a line each, from when they have something to do
    tally = {"seen": 0, "total": 0, "certified": 0, "correct": 0}

    def started(done: int, total: int) -> None:
        progress.update(images, completed=done, total=total)
        tally.update(seen=done, total=total)
        if done:
            console.print(f"{title}: resuming, {done} of {total} images are done", highlight=False)

    def working(worker: str, index: int | None, stage: str, done: int, total: int) -> None:
        if worker not in workers:
            if index is None or len(workers) == _LINES:
                return
            workers[worker] = progress.add_task("", total=None)
        if index is None:
            progress.update(workers[worker], visible=False)
            return
        progress.update(
            workers[worker],
            description=f"{worker}: image {index}, {stage}",
            completed=done,
            total=total or 1,  # None would keep that of the stage before
            visible=True,
        )

    def finished(record: Mapping[str, Any]) -> None:
        tally["seen"] += 1
        progress.advance(images)
        if not console.is_terminal:
            console.print(_line(title, tally, record), highlight=False, soft_wrap=True)

    with progress:
        yield Watch(started=started, working=working, finished=finished)


def _line(title: str, tally: Mapping[str, int], record: Mapping[str, Any]) -> str:
    if record["prediction"] is None:
        verdict = "abstain"
    else:
        right = "correct" if record["correct"] else "wrong"
        verdict = f"class {record['prediction']} ({right}), radius {_floored(record['radius'])}"
    return (
        f"{title}: {tally['seen']}/{tally['total']} image {record['index']}: {verdict}, "
        f"{record['cell_evaluations']:,} cell evaluations, {record['seconds']:.1f} s"
    )


def _floored(radius: float) -> str:
    """Format a radius without ever rounding it up."""
    return f"{int(radius * 1000) / 1000:.3f}"
