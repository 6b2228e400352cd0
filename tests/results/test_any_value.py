"""A run folder that holds JSON of wrong types is refused in a line, or shown; it never crashes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deqcert.certificate import AnyCertificate
from deqcert.errors import RunFolderError
from deqcert.results import RunFolder
from deqcert.results.html import read_run, render_page
from deqcert.results.live import LiveRun
from deqcert.results.live_view import line, picture, title
from deqcert.results.notes import notes_on
from deqcert.results.run_folder import RECORDS, RUN
from deqcert.results.summary import summarize
from deqcert.results.tables import markdown
from tests.results.made import CONFIGURATION, ENVIRONMENT, audited, certain, certificate

KINDS: dict[str, list[AnyCertificate]] = {
    "standard": [certificate(i) for i in range(3)],
    "audited": [audited(i, drawn=40, disagreements=1) for i in range(3)],
    "deterministic": [certain(i) for i in range(3)],
}
VALUES = (None, "x", -1, 0, 5, 1e300, 10**30, True, [1], ["x"], {}, {"a": 1}, {"a": "x"})


def forged(table: Any, path: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Yield `table` with each of its values replaced by each of `VALUES`."""
    entries = table.items() if isinstance(table, dict) else enumerate(table[:1])
    for key, value in entries:
        for other in VALUES:
            changed = copy.copy(table)
            changed[key] = other
            yield changed
        if isinstance(value, (dict, list)):
            for inner in forged(value):
                changed = copy.copy(table)
                changed[key] = inner
                yield changed


def look(path: Path, *, page: bool) -> None:
    """Show a run in every way there is, but for pictures."""
    live = LiveRun(path)
    snapshot = live.read()
    with (console := Console(width=100)).capture():
        console.print(picture(snapshot))
    assert title(snapshot)
    assert line(snapshot)
    run = RunFolder.open(path)
    run.frame()
    records = list(run.records())
    summary = summarize(records, radii=[0.0, 0.5])
    notes = notes_on([run], [records], [summary])
    assert markdown([summary], notes)
    if page:
        found = read_run(run, records, number=0, name="run", summary=summary)
        assert render_page([found], notes)


def is_shown(path: Path, *, page: bool) -> bool:
    """Show a run; return whether that was possible, or else refused as it should be."""
    try:
        look(path, page=page)
    except RunFolderError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_records_of_wrong_types_are_refused_or_shown(kind: str, tmp_path: Path) -> None:
    with RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT) as run:
        for made in KINDS[kind]:
            run.append(made, 0)
    file = tmp_path / RECORDS
    first, second, third = map(json.loads, file.read_text().splitlines())
    shown = refused = 0
    for number, record in enumerate(forged(second)):
        rows = (first, record, third)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if is_shown(tmp_path, page=number % 61 == 0):  # pages take a while
            shown += 1
        else:
            refused += 1
    assert shown > 20
    assert refused > 100


def test_a_run_json_of_wrong_types_is_refused_or_shown(tmp_path: Path) -> None:
    with RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT) as run:
        for made in KINDS["standard"]:
            run.append(made, 0)
    file = tmp_path / RUN
    shown = refused = 0
    for number, content in enumerate(forged(json.loads(file.read_text()))):
        file.write_text(json.dumps(content))
        if is_shown(tmp_path, page=number % 10 == 0):
            shown += 1
        else:
            refused += 1
    assert shown > 20
    assert refused > 20
