"""The bars of a run in a terminal: each shows what a worker is at, and nothing of before."""

from __future__ import annotations

import io

from rich.console import Console

from deqcert.runners.console import console_watch


def last_frame(*calls: tuple[str, int | None, str, int, int]) -> list[str]:
    """Return the lines that are left in a terminal after these calls of `Watch.working`."""
    written = io.StringIO()
    screen = Console(file=written, force_terminal=True, width=100, color_system=None)
    with console_watch("srs", screen) as watch:
        watch.started(0, 4)
        for call in calls:
            watch.working(*call)
    # Each frame begins by erasing the lines of the one before; the cursor shows again at the end.
    frame = written.getvalue().replace("\x1b[?25h", "").split("\x1b[2K")[-1]
    return frame.strip().splitlines()


def test_a_stage_without_steps_shows_no_steps_of_the_stage_before():
    audit = ("1", 7, "audit", 300, 2782)
    assert "300/2782" in last_frame(audit)[-1]
    line = last_frame(audit, ("1", 8, "start", 0, 0))[-1]
    assert "1: image 8, start" in line
    assert "2782" not in line


def test_an_idle_worker_has_no_bar_until_it_works_again():
    busy, idle = ("2", 7, "estimation", 5, 20), ("2", None, "idle", 0, 0)
    assert not any("image 7" in line or "idle" in line for line in last_frame(busy, idle))
    assert "2: image 9, estimation" in last_frame(busy, idle, ("2", 9, "estimation", 1, 20))[-1]
