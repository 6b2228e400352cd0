"""Progress of a training run: what it reports, and how a terminal or a log shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@dataclass(frozen=True)
class TrainWatch:
    """What a run calls while it works; the defaults stay silent.

    Attributes:
        started: Called once with (steps already done, epochs in all, steps per epoch).
        stepped: Called after each step with its loss.
        finished: Called after each epoch with its log record.
    """

    started: Callable[[int, int, int], None] = lambda done, epochs, steps: None
    stepped: Callable[[float], None] = lambda loss: None
    finished: Callable[[Mapping[str, Any]], None] = lambda record: None


@contextmanager
def console_progress(
    title: str, console: Console, *, silence: float = 600.0
) -> Iterator[TrainWatch]:
    """Show rate, loss and time left while the block runs; plain lines where no terminal is.

    Args:
        title: What is trained.
        console: Where it is shown.
        silence: Seconds after which a line says how far an epoch is, where no terminal is; an
            epoch of ImageNet takes hours.
    """
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24 if console.width >= 90 else 8),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    bar = bars.add_task(f"{title}: steps", total=None, loss="")
    spoke = time.monotonic()

    def say(text: str) -> None:
        nonlocal spoke
        spoke = time.monotonic()
        console.print(f"{title}: {text}", highlight=False, soft_wrap=True)

    def started(done: int, epochs: int, steps: int) -> None:
        bars.update(bar, completed=done, total=epochs * steps)
        if done:
            say(f"resuming, {done} of {epochs * steps} steps are done")

    def stepped(loss: float) -> None:
        bars.update(bar, advance=1, loss=f"loss {loss:.3f}")
        if not console.is_terminal and time.monotonic() - spoke > silence:
            task = bars.tasks[bar]
            say(f"step {task.completed:.0f} of {task.total:.0f}, loss {loss:.3f}")

    def finished(record: Mapping[str, Any]) -> None:
        if "validation" in record or not console.is_terminal:
            say(_line(record))

    with bars:
        yield TrainWatch(started=started, stepped=stepped, finished=finished)


def _line(record: Mapping[str, Any]) -> str:
    text = (
        f"epoch {record['epoch'] + 1}/{record['epochs']}, loss {record['loss']:.3f}, "
        f"{_rate(record)}{_clock(record['seconds_left'])} left"
    )
    if "validation" in record:
        shares = record["validation"]
        text += (
            f", held out ({shares['images']:,} images) {100 * shares['accuracy']:.1f} % under "
            f"noise, {100 * shares['smoothed_accuracy']:.1f} % smoothed"
        )
    return text


def _rate(record: Mapping[str, Any]) -> str:
    # Absent where the last session had nothing left to do but the epoch's end.
    found = record.get("images_per_second")
    if found is None:
        return ""
    return f"{found:.0f} images/s, " if found >= 10.0 else f"{found:.2g} images/s, "


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
