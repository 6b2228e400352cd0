"""Benchmark results as Markdown tables, from the JSON files alone.

    python benchmarks/tables.py benchmarks/results docs/benchmarks.md

puts the tables of a folder's results into a document, between its two marks; `suite.py` writes the
same tables of what it measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from console import markdown
from factors import table as factors_table
from paired import paired_summary
from paired import report as paired_report

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def summary(folder: Path) -> str:
    """Return all tables there are results for, under headings, the machine with each."""
    found = [
        (title, path, show) for title, pattern, show in SECTIONS for path in folder.glob(pattern)
    ]
    known = {path for _, path, _ in found}
    # Scripts that write a table of their own, NAME.md beside NAME.json.
    rest = [p for p in folder.glob("*.json") if p not in known and p.with_suffix(".md").exists()]
    parts = []
    for title, path, show in sorted(found, key=lambda f: _ORDER[f[0]] + f[1].name):
        content = json.loads(path.read_text(encoding="utf-8"))
        if body := show(content):
            parts.append(f"### {title}: {path.name}\n\n{body}\n{_machine(content)}")
    for path in sorted(rest):
        content = json.loads(path.read_text(encoding="utf-8"))
        body = path.with_suffix(".md").read_text(encoding="utf-8")
        title = path.stem.replace("_", " ").capitalize()
        parts.append(f"### {title}: {path.name}\n\n{body}\n{_machine(content)}")
    return "\n".join(parts)


def _machine(content: dict[str, Any]) -> str:
    m = content.get("machine")
    if m is None:
        return ""  # shares and counts, which no machine changes
    threads = content.get("settings", {}).get("threads", m["threads"])
    told = f" ({m['instructions']})" if "instructions" in m else ""  # older results do not say
    where = "" if m.get("device", "cpu") == "cpu" else f"{m['device']}; "
    return (
        f"{where}{m['processor']}{told}, {m['cores']} cores, threads: {threads}; "
        f"torch {m['torch']}, deqcert {m['deqcert']}.\n"
    )


def _factors(content: dict[str, Any]) -> str:
    return factors_table(content["summary"]) if "summary" in content else ""


def _size(content: dict[str, Any]) -> str:
    rows = [key.rsplit(", batch ", 1) for key in content["results"]]
    names, sizes = list(dict.fromkeys(n for n, _ in rows)), sorted({int(b) for _, b in rows})
    found = content["results"]
    body = [
        [
            name,
            *(
                f"{found[key]['ms_per_draw']:.3f}" if key in found else ""
                for key in (f"{name}, batch {size}" for size in sizes)
            ),
        ]
        for name in names
    ]
    return markdown(["ms per draw, by batch size", *map(str, sizes)], body)


def _same_work(content: dict[str, Any]) -> str:
    beside = content.get("beside")
    if beside is None:
        return ""
    rows = []
    for key, value in content.items():
        if not isinstance(value, dict) or "timed_draws" not in value:
            continue
        for name, row in value.items():
            if not isinstance(row, dict):
                continue
            low, high = row.get("other_over_ours_range", (None, None))
            ratio = f"{row['other_over_ours']:.2f} ({low:.2f} to {high:.2f})" if low else ""
            rows.append(
                [
                    key,
                    beside["name"] if name == "other" else name,
                    f"{row['cell_evaluations_per_draw']:.1f}",
                    f"{row['ms_per_draw']:.2f}",
                    f"{row['scaled_seconds']:.1f}",
                    ratio,
                ]
            )
        serialized = content["results"].get(f"{key}, serialized")
        if serialized:
            each = f"{serialized['cell_evaluations_scaled'] / 10_100:.1f}"
            spent = serialized["scaled_seconds"]
            name = f"{beside['name']}, serialized"
            rows.append([key, name, each, f"{spent / 10.1:.2f}", f"{spent:.1f}", ""])
    head = ["model", "who", "cell ev. per draw", "ms per draw", "s, n = 10,000", "other / ours"]
    differ = [v for k, v in content["results"].items() if k.endswith(", labels")]
    note = (
        f"Timed on {_timed(content):,} draws on either side and scaled. Noisy images labelled by "
        f"both: {sum(v['draws'] for v in differ):,}, of them differently: "
        f"{sum(v['differ'] for v in differ)}. The other: {beside['name']} {beside['version']}.\n"
    )
    remarks = "".join(f"- {line}\n" for line in beside["remarks"])
    return f"{markdown(head, rows)}\n{note}\n{remarks}"


def _timed(content: dict[str, Any]) -> int:
    return max(
        (v["timed_draws"] for v in content.values() if isinstance(v, dict) and "timed_draws" in v),
        default=0,
    )


def _paired(content: dict[str, Any]) -> str:
    if "summary" not in content:
        return ""
    slow, ours, settings = content["slow"], content["ours"], content["settings"]
    found = paired_summary(
        content["results"], sigma=settings["sigma"], alpha=settings["alpha"], n=settings["n"]
    )
    sides = (
        f"{settings['model']}: slow is {slow['reference']} in {slow['dtype']}, ours "
        f"{ours['reference']} in {ours['dtype']}.\n\n"
    )
    return sides + paired_report(found)


def _certified(content: dict[str, Any]) -> str:
    if "summary" not in content:
        return ""
    r, beside = content["summary"], content["beside"]
    head = ["who", "images", "n", "s per image", "mean radius", "peak MB"]
    rows = [
        ["ours", str(r["images"]), f"{r['n']:,}", f"{r['ours_seconds']:.2f}"],
        [beside["name"], str(r["images"]), f"{r['n']:,}", f"{r['other_seconds']:.2f}"],
    ]
    rows[0] += [f"{r['ours_mean_radius']:.3f}", ""]
    rows[1] += [f"{r['other_mean_radius']:.3f}", f"{r['other_peak_megabytes'] or 0:.0f}"]
    low, high = r["other_over_ours_range"]
    labels = content["results"]["labels"]
    note = (
        f"{content['settings']['model']}; {beside['name']} {beside['version']} takes "
        f"{r['other_over_ours']:.2f} times our time ({low:.2f} to {high:.2f}). Radii further apart "
        f"than chance has it: {r['further_apart_than_chance']} of {r['images']}. Noisy images "
        f"labelled by both: {labels['draws']}, of them differently {labels['differ']}.\n"
    )
    return f"{markdown(head, rows)}\n{note}"


def _cell(content: dict[str, Any]) -> str:
    head = ["model", "way", "ms per sample", "floor, ms", "plain / this", "other / this"]
    rows = []
    for name, found in content.get("models", {}).items():
        for way, r in found.get("ways", {"as measured": _one_way(found)}).items():
            ratios = (r.get("plain_over_this"), r.get("other_over_this"))
            shown = [f"{ratio:.2f}" if ratio else "" for ratio in ratios]
            rows.append([name, way, f"{r['ms']:.3f}", f"{r['floor_ms']:.3f}", *shown])
    return markdown(head, rows) if rows else ""


def _one_way(found: dict[str, Any]) -> dict[str, Any]:
    """Return what results from before there was more than one way hold."""
    return {
        "ms": found["ours_ms"],
        "floor_ms": found["floor_ms"],
        "other_over_this": found.get("other_over_ours"),
    }


def _draws(content: dict[str, Any]) -> str:
    rows = [
        [method, f"{r['n']:,}", f"{r['seconds']:.2f}", f"{r['peak_megabytes']:.0f}"]
        for method in ("standard", "srs")
        for r in content.get(method, [])
    ]
    return markdown(["method", "n", "seconds", "peak MB"], rows) if rows else ""


def _tuned(content: dict[str, Any]) -> str:
    """Return the references chosen by `deqcert tune`, beside 30 Anderson steps and plain ones."""
    head = ["at most other labels", "reference", "cell ev.", "looks", "cost", "other labels"]
    head += ["right", "plain steps, cost"]
    chosen = {c["reference"]: c for c in content["chosen"]}
    rows = []
    for limit, name in zip(content["limits"], content["chosen_for"], strict=True):
        if name is None:
            continue
        c = chosen[name]
        kept = [p for p in content["plain"] if p["differing"] <= limit]
        plain = min(kept, key=lambda p: p["cost"], default=None)
        rows.append(
            [
                f"{100 * limit:g} %",
                f"`{name}`",
                f"{c['evaluations']:.2f}",
                f"{c['classifications']:.2f}",
                f"{c['cost']:.2f}",
                f"{100 * c['differing']:.2f} %, below {100 * c['differing_upper']:.2f}",
                f"{100 * c['accuracy']:.1f} %",
                f"`{plain['reference']}`, {plain['cost']:.2f}" if plain else "",
            ]
        )
    note = (
        f"{content['model']}, {content['data']} {content['split']}, sigma {content['sigma']:g}, "
        f"{content['precision']}; other labels than {content['against']}, which is right in "
        f"{100 * content['accuracy']:.1f} %. Chosen on {content['images'] // 2:,} images x "
        f"{content['copies']} copies, measured on as many others.\n"
    )
    return f"{markdown(head, rows)}\n{note}"


SECTIONS: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    ("Each factor switched on", "factors*.json", _factors),
    ("The same work elsewhere", "same_work*.json", _same_work),
    ("Certificates elsewhere", "certify_beside*.json", _certified),
    ("End to end", "end_to_end*.json", _paired),
    ("References with early exits", "tune/*.json", _tuned),
    ("One cell evaluation", "cell_cost*.json", _cell),
    ("Cost against the number of draws", "cost_against_n*.json", _draws),
    ("Cost against batch and model size", "cost_against_size*.json", _size),
)
_ORDER = {title: f"{place:02}" for place, (title, _, _) in enumerate(SECTIONS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, help="folder of JSON files")
    parser.add_argument("document", type=Path, help="Markdown file with the two marks")
    options = parser.parse_args()
    text = options.document.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    made = f"{BEGIN}\n\n{summary(options.results)}\n{END}"
    options.document.write_text(before + made + after, encoding="utf-8")


if __name__ == "__main__":
    main()
