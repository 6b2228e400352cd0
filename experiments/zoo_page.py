"""Put the tables of docs/zoo.md in place: what the models' cards and committed results say.

python -m experiments.zoo_page
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deqcert.models import available_models
from deqcert.models.zoo import WEIGHTS, ModelEntry
from deqcert.results.files import write_atomically
from deqcert.results.tables import aligned
from experiments.command import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "zoo.md"
STEPS = ("1", "2", "3", "5", "30")


def page(text: str, results: Path = RESULTS) -> str:
    """Return the page with its tables filled in."""
    text = _filled(text, "models", models())
    text = _filled(text, "trainings", "\n".join(trainings(results)))
    return _filled(text, "studies", "\n".join(studies(results)))


def models() -> str:
    """Return the table of trained models that ship."""
    header = [
        "model",
        "trained on",
        *(f"{k} step{'s' * (k != '1')}" for k in STEPS),
        "parameters",
        "kB",
        "trained in",
    ]
    return _table(header, [_model(entry) for entry in _shipped()])


def _shipped() -> list[ModelEntry]:
    """Return every set of weights once, under its full name."""
    return [entry for entry in available_models() if _file(entry).exists()]


def _file(entry: ModelEntry) -> Path:
    return WEIGHTS / f"{entry.name}.safetensors"


def _model(entry: ModelEntry) -> list[str]:
    card = entry.card
    by_steps = card["test"]["accuracy_by_steps"]
    sigma = f"sigma {card['sigma']:g}" if card["sigma"] else "no noise"
    size = _file(entry).stat().st_size
    return [
        f"`{entry.name}`",
        f"{card['data']['name']}, {sigma}",
        *(f"{100 * by_steps[k]:.1f}" for k in STEPS),
        f"{card['parameters']:,}",
        f"{size / 1000:.0f}",
        f"{card.get('processor_seconds', card['seconds']) / 60:.0f} min",
    ]


def trainings(results: Path) -> Iterator[str]:
    """Yield what there is of training curves and of weights compared on the same noisy images."""
    curves, compared = results / "training", results / "equal-training"
    if (curves / "table.md").exists():
        picture = Path(os.path.relpath(curves / "curves.png", PAGE.parent)).as_posix()
        yield f"![Share right under noise against hours of training]({picture})\n"
        yield (curves / "table.md").read_text(encoding="utf-8")
    if (compared / "table.md").exists():
        yield (compared / "table.md").read_text(encoding="utf-8")


def studies(results: Path) -> Iterator[str]:
    """Yield a table for every study and norm there are results of."""
    for path in sorted(results.glob("*/table.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [row for row in content["rows"] if row["images"]]
        for norm, radii in (("L2", content["radii"]), ("Linf", content.get("radii_linf", []))):
            chosen = [row for row in rows if row["norm"] == norm]
            if chosen:
                yield f"### {content['title']}{', Linf' if norm == 'Linf' else ''}\n"
                yield _study(chosen, radii)
                yield f"`{_command(content)}`\n"


def _command(content: Mapping[str, Any]) -> str:
    name, preset = content["study"], content["preset"]
    data = name.removeprefix("comparison-")
    if data != name:
        return f"python -m experiments.comparison --data {data} --preset {preset}"
    return f"python -m experiments.study {name} --preset {preset}"


def _study(rows: Sequence[Mapping[str, Any]], radii: Sequence[float]) -> str:
    claimed = any(row["accuracy"] is not None for row in rows)
    header = ["model, method", "images"]
    header += [*(f"r = {r}" for r in aligned(radii)), "ACR"] if claimed else []
    header += ["cell evaluations", "seconds"]
    missing = ["-"] * (len(radii) + 1) if claimed else []
    return _table(header, [_row(row, missing) for row in rows])


def _row(row: Mapping[str, Any], missing: Sequence[str]) -> list[str]:
    """Return the cells of a row, with `missing` for accuracies that are not claimed."""
    title = row["title"]
    if "none" in row["guarantees"]:
        title += " **NO GUARANTEE**"
    accuracy = missing
    if row["accuracy"] is not None:
        accuracy = [f"{100 * share:.0f}" for share in row["accuracy"]]
        accuracy.append(f"{row['average_radius']:.3f}")
    return [
        title,
        str(row["images"]),
        *accuracy,
        f"{row['cell_evaluations']:,.0f}",
        f"{row['seconds']:.2g}",
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _filled(text: str, name: str, body: str) -> str:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n\n{body}\n{end}{tail}"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--page", type=Path, default=PAGE, help="document to fill in")
    options = parser.parse_args()
    write_atomically(options.page, page(options.page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
