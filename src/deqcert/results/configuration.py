"""What decides a run's results: compared on resume, so that two configurations never mix."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deqcert.errors import RunFolderError


def require_same(folder: Path, *, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse to mix two configurations in one folder, naming each difference."""
    early = "architecture" in wanted and "architecture" not in stored
    known = {key: value for key, value in wanted.items() if key != "architecture" or not early}
    differences = configuration_differences(stored, known)
    if differences:
        listed = ", ".join(f"{key} {old!r} there, {new!r} now" for key, old, new in differences)
        raise RunFolderError(
            f"{folder} holds a run of another configuration ({listed}); choose another folder"
        )
    if early:
        raise RunFolderError(
            f"{folder} was begun by a version that did not record the model's architecture: this "
            "may be another model; finish it with that version, or choose another folder"
        )


def configuration_differences(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Return ``(key, value in first, value in second)`` where they differ; nested keys get dots.

    A key that one of them lacks has the value ``"(absent)"`` there.
    """
    one, two = dict(_flat(first)), dict(_flat(second))
    keys = [*one, *(key for key in two if key not in one)]
    pairs = ((key, one.get(key, "(absent)"), two.get(key, "(absent)")) for key in keys)
    return [(key, old, new) for key, old, new in pairs if old != new]


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested tables with dotted keys."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def as_json(what: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return `table` as it will be read back, so that a tuple equals the list it becomes."""
    try:
        return json.loads(json.dumps(table, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RunFolderError(f"{what} is not plain JSON: {error}") from error
