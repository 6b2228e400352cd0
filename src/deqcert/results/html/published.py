"""Published rows that stand beside a run where data, model and noise are the same.

Facts only, from the sources named with them. Weights and hardware were others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from deqcert.results.html.runs import ReportedRun


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One published row.

    Attributes:
        title: As published, with what it claims where that is no guarantee.
        radii: L2, pixel units, ascending.
        accuracy: Certified accuracy in percent at those radii.
        source: Who published it.
        shown: Whether it is drawn from the start, not only on request.
    """

    title: str
    radii: tuple[float, ...]
    accuracy: tuple[float, ...]
    source: str
    shown: bool


@cache
def published_tables() -> list[dict[str, Any]]:
    """Return the tables of ``published.json``: settings to match, radii, rows."""
    file = resources.files("deqcert.results.html") / "assets" / "published.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    return [{**table, "source": content["sources"][table["source"]]} for table in content["tables"]]


def published_rows(run: ReportedRun) -> list[PublishedRow]:
    """Return the rows whose setting is the run's; none where a part of it is unknown."""
    return [
        PublishedRow(
            title=f"{row['title']} (no guarantee)" if row.get("claim") == "none" else row["title"],
            radii=tuple(table["radii"][: len(row["accuracy"])]),
            accuracy=tuple(row["accuracy"]),
            source=table["source"],
            shown=bool(row.get("shown", False)),
        )
        for table in published_tables()
        if _matches(table["setting"], run)
        for row in table["rows"]
    ]


def _matches(setting: Mapping[str, Any], run: ReportedRun) -> bool:
    """Whether every entry of `setting` is the run's; models match by their name's beginning."""
    have = {
        **{key: run.configuration.get(key) for key in ("data", "split", "sigma", "method")},
        "norm": run.norm,
        "family": "noise" if run.draws else "deterministic",
    }
    models = [str(facts["model"]) for facts in run.environments if facts.get("model")]
    for key, wanted in setting.items():
        if key == "model":
            same = bool(models) and all(_is_model(name, wanted) for name in models)
        else:
            same = have.get(key) == wanted
        if not same:
            return False
    return True


def _is_model(name: str, architecture: str) -> bool:
    """Whether `name` is the architecture, or weights of it trained at some noise."""
    return name == architecture or name.startswith(f"{architecture}-s")
