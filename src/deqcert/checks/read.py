"""Reading a run folder that may have been tampered with: every line that can be read, is.

`RunFolder.open` stops at the first damage; here damage is something to report beside the rest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from deqcert.checks.problems import Place, Problem
from deqcert.errors import RunFolderError
from deqcert.results.run_folder import COHEN, FORMAT, RECORDS, RUN

Record = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """One line of ``records.jsonl`` that holds a table.

    Attributes:
        place: Where it is.
        record: Its content, unchecked.
    """

    place: Place
    record: Record


@dataclass
class RunFiles:
    """The three files of a run folder, as found.

    Attributes:
        path: The folder.
        configuration: The configuration in ``run.json``.
        environments: The environments in ``run.json``.
        found: Lines of ``records.jsonl`` that hold a table, in order.
        table: Lines of ``cohen.tsv``; None where the file is missing.
        problems: Lines that hold none, and files that are missing.
    """

    path: Path
    configuration: dict[str, Any]
    environments: list[dict[str, Any]]
    found: list[Found] = field(default_factory=list)
    table: list[str] | None = None
    problems: list[Problem] = field(default_factory=list)


def read_run(path: str | PathLike[str]) -> RunFiles:
    """Read a run folder.

    Raises:
        RunFolderError: No run folder, or a ``run.json`` that cannot be read: without it nothing
            in the folder has a meaning.
    """
    folder = Path(path)
    content = _run_json(folder)
    files = RunFiles(folder, content["configuration"], content["environments"])
    _read_records(files)
    _read_table(files)
    return files


def _run_json(folder: Path) -> dict[str, Any]:
    path = folder / RUN
    try:
        content = strict_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunFolderError(f"{folder} is not a run folder (no {RUN})") from error
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged: {error}") from error
    version = content.get("format")
    if type(version) is not int or version != FORMAT:
        raise RunFolderError(f"{path} has format {version!r}, but this version reads {FORMAT}")
    environments = content.get("environments")
    if not isinstance(content.get("configuration"), dict):
        raise RunFolderError(f"{path} is damaged: its configuration is not a table")
    tables = isinstance(environments, list) and all(isinstance(e, dict) for e in environments)
    if not tables or not environments:
        raise RunFolderError(f"{path} is damaged: its environments are not a list of tables")
    return content


def strict_json(text: bytes) -> dict[str, Any]:
    """Return the JSON table in `text`.

    Raises:
        ValueError: Not JSON, not a table, a NaN or infinity, or a key that is there twice (of
            which readers may take either).
    """

    def refuse(name: str) -> None:
        raise ValueError(f"it holds {name}, which is not JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"it holds {twice!r} twice")
        return table

    content = json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    if not isinstance(content, dict):
        raise ValueError("it is not a table")
    return content


def _read_records(files: RunFiles) -> None:
    path = files.path / RECORDS
    try:
        content = path.read_bytes()
    except OSError as error:
        why = "without records nothing is claimed"
        message = error.strerror or str(error)
        files.problems.append(Place(RECORDS).problem("(file)", message, "a file", why))
        return
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        place = Place(RECORDS, number)
        if not line.endswith(b"\n"):
            files.problems.append(_torn(place, line))
            continue
        try:
            record = strict_json(line)
        except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
            why = "the line cannot be read, so this image's certificate is lost or hidden"
            files.problems.append(place.problem("(line)", str(error), "one JSON table", why))
            continue
        index = record.get("index")
        index = index if type(index) is int else None
        files.found.append(Found(Place(RECORDS, number, index), record))


def _torn(place: Place, line: bytes) -> Problem:
    return place.problem(
        "(line)",
        f"{len(line)} bytes without a newline",
        "a whole line",
        "the file is cut off within a record: by a kill, then resuming drops it, or by hand",
    )


def _read_table(files: RunFiles) -> None:
    try:
        text = (files.path / COHEN).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = "the field's analysis scripts read this file; resuming the run rebuilds it"
        files.problems.append(Place(COHEN).problem("(file)", str(error), "a table", why))
        return
    files.table = text.split("\n")
    if files.table[-1] == "":
        files.table.pop()  # what follows the last newline
