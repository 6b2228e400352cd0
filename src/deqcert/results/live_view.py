"""A run's `Snapshot` for people: a picture for the terminal, one line for files and pipes."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deqcert.results.live import FINISHED, RUNNING, STOPPED, Snapshot
from deqcert.results.progress import WorkerProgress
from deqcert.results.tables import named_radii

BAR = 24
NO_GUARANTEE = "NO GUARANTEE: these radii are not certified"
QUIET = 10.0
"""Seconds without news that are worth a word."""


def picture(snapshot: Snapshot) -> RenderableType:
    """Return what a terminal shows."""
    parts: list[RenderableType] = [
        Text(title(snapshot), style="bold"),
        _images(snapshot),
        _accuracies(snapshot),
        Text(_abstentions(snapshot)),
    ]
    if snapshot.unguaranteed:
        parts.append(Text(NO_GUARANTEE, style="bold red"))
    parts.append(Text(state(snapshot), style="" if snapshot.state == RUNNING else "bold"))
    if snapshot.workers:  # last: where there are many, the screen ends before they do
        parts.append(_workers(snapshot))
    return Group(*parts)


def title(snapshot: Snapshot) -> str:
    """Return the run's folder and what it certifies."""
    settings = snapshot.configuration
    facts = [
        str(settings.get("method", "")),
        f"sigma {settings['sigma']:g}" if isinstance(settings.get("sigma"), float) else "",
        f"n {settings['n']:,}" if isinstance(settings.get("n"), int) else "",
        " ".join(str(settings[k]) for k in ("data", "split") if isinstance(settings.get(k), str)),
    ]
    return f"{snapshot.path}: {', '.join(fact for fact in facts if fact)}"


def line(snapshot: Snapshot) -> str:
    """Return the numbers of a snapshot in one line of plain text."""
    total = "" if snapshot.total is None else f"/{snapshot.total:,}"
    share = f" ({100 * snapshot.done / snapshot.total:.0f} %)" if snapshot.total else ""
    parts = [f"{snapshot.done:,}{total} images{share}{_speed(snapshot)}"]
    if snapshot.images:
        levels = [f"{name} {value}" for name, value in _certified(snapshot)]
        parts += [f"certified so far: {', '.join(levels)}", _abstentions(snapshot)]
    if snapshot.unguaranteed:
        parts.append(NO_GUARANTEE)
    parts += [
        f"{name}: image {worker.index}, {worker.stage} {worker.done:,}/{worker.total:,}"
        for name, worker in _sorted(snapshot)
        if worker.index is not None
    ]
    return " | ".join(parts)


def state(snapshot: Snapshot) -> str:
    """Return what the run does, or since when it does nothing."""
    who = f" ({snapshot.process})" if snapshot.process else ""
    if snapshot.state == RUNNING:
        quiet = snapshot.at - (snapshot.updated or snapshot.at)
        return f"running{who}" + (f"; no news for {duration(quiet)}" if quiet > QUIET else "")
    if snapshot.state == FINISHED:
        return f"finished: {snapshot.done:,} of {snapshot.total:,} images"
    since = "" if snapshot.updated is None else f" since {_clock(snapshot.updated)}"
    if snapshot.state == STOPPED:
        return f"stopped{since}; the same command goes on from there"
    hint = "" if snapshot.total is None else "; the same command goes on from there"
    return f"not running{since}{who}{hint}"


def duration(seconds: float) -> str:
    """Return a time span in its two largest units.

    >>> duration(3723)
    '1 h 02 min'
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def rate(per_second: float) -> str:
    """Return a rate of images in the unit that makes it readable."""
    for unit, seconds in (("s", 1), ("min", 60), ("h", 3600)):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:.3g}/{unit}"
    return f"{per_second * 86_400:.3g}/day"


def _images(snapshot: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    share = f"{100 * snapshot.done / snapshot.total:.0f} %" if snapshot.total else ""
    total = "" if snapshot.total is None else f"/{snapshot.total:,}"
    bar = ProgressBar(total=snapshot.total or 1, completed=snapshot.done, width=BAR)
    cells: list[RenderableType] = [Text("images")]
    if snapshot.total is not None:
        cells.append(bar)
    grid.add_row(*cells, Text(f"{snapshot.done:,}{total}"), share, _speed(snapshot).lstrip(", "))
    return grid


def _accuracies(snapshot: Snapshot) -> RenderableType:
    """Return a small table: a column per radius."""
    if not snapshot.images:
        return Text("no records yet")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("certified so far")
    for name, _ in _certified(snapshot):
        table.add_column(name, justify="right")
    table.add_row(f"of {snapshot.images:,} images", *(value for _, value in _certified(snapshot)))
    return table


def _workers(snapshot: Snapshot) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("worker", "image", "stage", "", "draws", "time"):
        table.add_column(name)
    for name, worker in _sorted(snapshot):
        idle = worker.index is None
        table.add_row(
            Text(name),
            "-" if idle else str(worker.index),
            Text(worker.stage),
            ""
            if idle
            else ProgressBar(total=max(1, worker.total), completed=worker.done, width=12),
            "" if idle else f"{worker.done:,}/{worker.total:,}",
            "" if idle else duration(snapshot.at - worker.since),
        )
    return table


def _sorted(snapshot: Snapshot) -> list[tuple[str, WorkerProgress]]:
    """Return the workers in the order of their names, 2 before 10."""
    return sorted(snapshot.workers.items(), key=lambda item: (len(item[0]), item[0]))


def _certified(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return (radius, certified accuracy) as shown."""
    names = named_radii([radius for radius, _ in snapshot.certified], snapshot.norm)
    shares = [f"{100 * count / snapshot.images:.1f} %" for _, count in snapshot.certified]
    return list(zip(names, shares, strict=True))


def _abstentions(snapshot: Snapshot) -> str:
    share = f" ({100 * snapshot.abstentions / snapshot.images:.1f} %)" if snapshot.images else ""
    late = f", {snapshot.timed_out:,} of them at the time limit" if snapshot.timed_out else ""
    return f"abstentions {snapshot.abstentions:,}{share}{late}"


def _speed(snapshot: Snapshot) -> str:
    if snapshot.rate is None:
        return ""
    left = "" if snapshot.left is None else f", {duration(snapshot.left)} left"
    return f", {rate(snapshot.rate)}{left}"


def _clock(moment: float) -> str:
    """Return a moment as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
