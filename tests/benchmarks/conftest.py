"""The benchmark scripts can be imported, as they import each other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
if str(SCRIPTS) not in sys.path:
    sys.path.append(str(SCRIPTS))


@pytest.fixture
def other() -> str:
    """Return the command of another implementation."""
    return f"{sys.executable} {Path(__file__).with_name('other.py')}"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs a script's `main` with a command line.

    On all processors: test processes beside this one would end up on the same one.
    """
    import contest

    monkeypatch.setattr(contest, "_ALLOWED", [])

    def run(main: Callable[[], None], line: str, *more: str) -> None:
        monkeypatch.setattr(sys, "argv", ["script", *line.split(), *more])
        main()

    return run
