"""The command ``watch``: parsing and wiring, as in `deqcert.cli`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from deqcert.cli_options import parse_radii
from deqcert.errors import ConfigurationError

if TYPE_CHECKING:
    from deqcert.results.live import LiveRun, Snapshot

out = Console()

TERMINAL_EVERY, FILE_EVERY = 1.0, 10.0
_LONGEST = 86_400.0


def watch(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    radii: Annotated[
        str | None,
        typer.Option(
            help="Radii of the certified accuracy, pixel units, such as 0,0.25,0.5. Default: "
            "multiples of sigma / 2."
        ),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(
            help="Seconds between two looks, > 0, at most a day. Default: 1 in a terminal; 10 in a "
            "file, which gets a line where something changed."
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show where the run is, and leave.")] = False,
) -> None:
    """Watch a run until it is finished, from its folder alone.

    Exit code 0 where all images are done (or, with --once, under way), 1 where the run ended
    before, 2 for bad input.
    """
    from deqcert.results.live import FINISHED, RUNNING, LiveRun

    if every is not None and not 0 < every <= _LONGEST:
        raise ConfigurationError(f"--every must lie in (0, {_LONGEST:g}], but got {every:g}")
    live = LiveRun(run, radii=parse_radii(radii))
    try:
        show = _draw if out.is_terminal else _print
        last = show(live, every or (TERMINAL_EVERY if out.is_terminal else FILE_EVERY), once)
    except KeyboardInterrupt:  # it stops the watching, not the run
        raise typer.Exit(130) from None
    if last.state not in (RUNNING, FINISHED):
        raise typer.Exit(1)


def _draw(live: LiveRun, every: float, once: bool) -> Snapshot:
    """Redraw one picture in the terminal until the run is over; return the last snapshot."""
    from rich.live import Live

    from deqcert.results.live_view import picture

    snapshot = live.read()
    with Live(picture(snapshot), console=out, auto_refresh=False) as screen:
        while not (once or snapshot.over):
            time.sleep(every)
            snapshot = live.read()
            screen.update(picture(snapshot), refresh=True)
    return snapshot


def _print(live: LiveRun, every: float, once: bool) -> Snapshot:
    """Print a plain line whenever something changed until the run is over."""
    from deqcert.results.live_view import line, state, title

    snapshot = live.read()
    _say(title(snapshot))
    _say(line(snapshot))
    while not (once or snapshot.over):
        time.sleep(every)
        before, snapshot = snapshot, live.read()
        if (snapshot.done, snapshot.workers) != (before.done, before.workers):
            _say(line(snapshot))
    _say(state(snapshot))
    return snapshot


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
