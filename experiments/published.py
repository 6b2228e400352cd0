"""Published numbers, as data: ``published.toml``, each table with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from deqcert.cli_options import read_toml
from deqcert.errors import unknown_name

FILE = Path(__file__).parent / "published.toml"


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One row of a published table; None where nothing is published.

    Attributes:
        title: As published.
        accuracy: Certified accuracy in percent at the table's radii.
        average_radius: Average certified radius.
        clean: Accuracy without noise, in percent.
        seconds: Seconds per image.
        claim: What is claimed for it, in words.
    """

    title: str
    accuracy: tuple[float, ...] = ()
    average_radius: float | None = None
    clean: float | None = None
    seconds: float | None = None
    claim: str = ""


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A published table.

    Attributes:
        name: Its name.
        source: Who published it, and how it was measured.
        radii: Radii of the accuracies, L2, pixel units.
        rows: By title.
    """

    name: str
    source: str
    radii: tuple[float, ...] = ()
    rows: Mapping[str, PublishedRow] = field(default_factory=dict)


@cache
def published_tables() -> dict[str, PublishedTable]:
    """Return all published tables by name."""
    content = read_toml(FILE)
    return {
        table["name"]: PublishedTable(
            name=table["name"],
            source=content["sources"][table["source"]],
            radii=tuple(table.get("radii", ())),
            rows={row["title"]: _row(row) for row in table["rows"]},
        )
        for table in content["tables"]
    }


def find_table(name: str) -> PublishedTable:
    """Return a published table.

    Raises:
        UnknownNameError: No such table.
    """
    tables = published_tables()
    if name not in tables:
        raise unknown_name("published table", name, tables)
    return tables[name]


def _row(values: Mapping[str, Any]) -> PublishedRow:
    return PublishedRow(**{**values, "accuracy": tuple(values.get("accuracy", ()))})
