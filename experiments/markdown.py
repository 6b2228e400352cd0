"""``table.md``: the published layout, a row per model, published numbers in italics beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deqcert.results.tables import aligned
from deqcert.stats import certified_radius, clopper_pearson_lower
from experiments.measures import SMALL_GAP, histogram
from experiments.published import PublishedRow
from experiments.tables import Line, Results, audited, differences, find_published

NO_GUARANTEE = "**NO GUARANTEE**"
WORDS = {
    "standard": "with probability 1 - alpha over the noise; rests on independent draws of the "
    "classifier (Cohen et al. 2019)",
    "audited": "with probability 1 - alpha over the noise and a random audit (Theorem A'); nothing "
    "is assumed of the serialized labels",
    "proved": "with probability 1 - alpha over the noise; serialized, each counted label proved at "
    "the exact equilibrium; rests on the model being monotone",
    "deterministic": "always: no noise, no failure probability; rests on the model being monotone",
    "none": "for comparison: the bound does not follow from the draws (docs/theory/published.md)",
}
_PUBLISHED_CLAIMS = {
    "none": "claimed by Theorem 3.1; does not follow from what was run",
    "deterministic": "deterministic, as claimed",
    "": "standard smoothing, as claimed",
}


CONSTANTS = {
    "m": "strong monotonicity m =",
    "lipschitz": "Lipschitz constant of image to equilibrium <=",
    "input_norm": "norm of U (pixel units) <=",
    "head_norm": "norm of the head <=",
}
"""Facts of deterministic certificates that tables show; the records hold all of them."""


def markdown(results: Results) -> str:
    """Return all tables of a study."""
    study = results.study
    parts = [f"# {study.title}, preset `{study.preset}`\n", f"{study.about.strip()}\n"]
    parts += [_table(results, norm) for norm in ("L2", "Linf") if _has(results, norm)]
    parts += [_facts(results), _pairs(results), _gaps(results), _notes(results)]
    return "\n".join(part for part in parts if part)


def _has(results: Results, norm: str) -> bool:
    return any(line.norm == norm for line in results.lines)


def _table(results: Results, norm: str) -> str:
    """Return the table of the rows of one norm."""
    study = results.study
    radii = study.radii if norm == "L2" else study.radii_linf
    header = [
        "model, method",
        *(f"r = {radius}" for radius in aligned(radii)),
        "ACR",
        *(["clean"] if _shows_clean(results) else []),
        "cell evaluations / image",
        "s / image",
        "images",
        "guarantee",
    ]
    rows = [header, ["---", *("---:" for _ in header[1:-1]), "---"]]
    rows += _rows(results, norm, radii)
    lines = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    what = (
        f"Certified accuracy in % at radius r ({norm}, pixels in [0, 1]), average certified radius"
    )
    return f"## {norm}\n\n{what}.\n\n{lines}\n"


def _shows_clean(results: Results) -> bool:
    published = (row for table in results.tables for row in table.rows.values())
    return any(found.clean is not None for found in (*results.lines, *published))


def _rows(results: Results, norm: str, radii: Sequence[float]) -> Iterator[list[str]]:
    """Yield our rows, each followed by the published one it repeats, then the other published."""
    shown: set[str] = set()
    clean = _shows_clean(results)
    for line in results.lines:
        if line.norm != norm:
            continue
        yield _ours(line, len(radii), clean)
        if line.published is not None and line.published not in shown:
            found = find_published(results, line.published)
            assert found is not None, "the study names only rows of its published tables"
            shown.add(line.published)
            yield _theirs(found[1], found[0].radii, radii, clean)
    if norm != "L2":
        return  # every published table here is about L2
    for table in results.tables:
        for title, row in table.rows.items():
            if title not in shown:
                shown.add(title)
                yield _theirs(row, table.radii, radii, clean)


def _ours(line: Line, radii: int, clean: bool) -> list[str]:
    # The whole status of a row without weights, with the command that makes them, is in the notes.
    status = "" if line.status == "complete" else f" ({line.status.partition(' of ')[0]})"
    title = line.title + status
    if line.guarantees is None:
        return [title, *["-"] * (radii + (4 if not clean else 5)), "-"]
    return [
        title,
        *(["-"] * radii if line.accuracy is None else map(_percent, line.accuracy)),
        "-" if line.average_radius is None else f"{line.average_radius:.3f}",
        *([_percent(line.clean)] if clean else []),
        f"{line.cell_evaluations:,.0f}",
        f"{line.seconds:.3g}",
        f"{line.images:,}",
        _guarantee(line.guarantees),
    ]


def _guarantee(guarantees: dict[str, int]) -> str:
    if "none" in guarantees:
        return NO_GUARANTEE
    if len(guarantees) == 1:
        return next(iter(guarantees))
    return ", ".join(f"{count:,} {name}" for name, count in guarantees.items())


def _theirs(
    row: PublishedRow, published: Sequence[float], radii: Sequence[float], clean: bool
) -> list[str]:
    found = dict(zip(published, row.accuracy, strict=False))
    cells = [
        f"published: {row.title}",
        *(f"{found[radius]:g}" if radius in found else "-" for radius in radii),
        "-" if row.average_radius is None else f"{row.average_radius:.2f}",
        *(["-" if row.clean is None else f"{row.clean:g}"] if clean else []),
        "-",
        "-" if row.seconds is None else f"{row.seconds:g}",
        "-",
        _PUBLISHED_CLAIMS[row.claim],
    ]
    return [cell if cell == "-" else f"*{cell}*" for cell in cells]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _facts(results: Results) -> str:
    """Return the constants that the deterministic proofs rest on, each model once."""
    lines: dict[str, str] = {}
    for line in results.lines:
        facts = (
            {key: line.facts[key] for key in CONSTANTS if key in line.facts} if line.facts else {}
        )
        listed = ", ".join(f"{CONSTANTS[key]} {value:.4g}" for key, value in facts.items())
        if listed:
            lines.setdefault(f"{line.settings['model']}, {line.method}", listed)
    found = [f"- {name}: {listed}" for name, listed in lines.items()]
    return "\n".join(["## Constants of the proofs\n", *found, ""]) if found else ""


def _pairs(results: Results) -> str:
    """Return the table of relative radius differences."""
    found = differences(results)
    if not found:
        return ""
    title = {line.name: line.title for line in results.lines}
    rows = [
        "## Relative radius difference\n",
        "|r_standard - r_serialized| / r_standard over the images with r_standard > 0.\n",
        "| standard | serialized | images | mean | median | serialized larger |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for pair, difference in found:
        mean, median = map(_four_decimals, (difference.mean, difference.median))
        rows.append(
            f"| {title[pair.standard]} | {title[pair.serialized]} | {difference.positive} | "
            f"{mean} | {median} | {difference.larger} |"
        )
    return "\n".join(rows) + "\n\n" + _bins({f"{p.serialized}": d.values for p, d in found}, "RRD")


def _four_decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _gaps(results: Results) -> str:
    """Return the table of the gaps p_m."""
    found = audited(results)
    if not found:
        return ""
    title = {line.name: line.title for line in results.lines}
    rows = [
        "## Gap between serialized and reference labels\n",
        "p_m = 1 - LowerConfBound(agreed, audited, 1 - alpha / 2) of each image (Gao et al. 2024; "
        "there 95 % of the images are below 0.2, published). Audits are random in `srs`; those of "
        "`srs-paper` are the first draws after the first batch.\n",
        f"| row | images audited | below {SMALL_GAP} | disagreements per audited draw |",
        "|---|---:|---:|---:|",
    ]
    rows += [
        f"| {title[name]} | {gap.images} | {_percent(gap.below)} % | {gap.disagreements:.4f} |"
        for name, gap in found.items()
    ]
    return "\n".join(rows) + "\n\n" + _bins({n: g.values for n, g in found.items()}, "gap")


def _bins(columns: dict[str, Sequence[float]], what: str) -> str:
    """Return a histogram: a line per bin that is not empty everywhere, a column per row."""
    found = {name: histogram(values) for name, values in columns.items()}
    edges = [left for left, _ in next(iter(found.values()))]
    rows = [
        "| " + " | ".join([f"{what}, images", *found]) + " |",
        "|---" + "|---:" * len(found) + "|",
    ]
    for position, left in enumerate(edges):
        counts = [bins[position][1] for bins in found.values()]
        if any(counts):
            right = f"{left + 0.1:.1f}" if position < len(edges) - 1 else "more"
            rows.append(f"| {left:.1f} to {right} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(rows) + "\n"


def _notes(results: Results) -> str:
    """Return what a reader must know: guarantees in words, sources, sizes, what is missing."""
    kinds = {kind for line in results.lines for kind in line.guarantees or ()}
    notes = [f"{_guarantee({kind: 1})}: {WORDS[kind]}." for kind in sorted(kinds)]
    notes += [f"{line.title}: {line.note}." for line in results.lines if line.note]
    missing: dict[str, list[str]] = {}
    for line in results.lines:
        if " of " in line.status:
            missing.setdefault(line.status, []).append(line.name)
    notes += [f"{status}: {', '.join(names)}." for status, names in missing.items()]
    if any(
        line.method == "srs" and "standard" in (line.guarantees or ()) for line in results.lines
    ):
        notes.append("`srs` plans per image; `standard` in its guarantee: independent solves.")
    notes += _about_sizes(results)
    sources = dict.fromkeys(table.source for table in results.tables)
    notes += [f"Rows in italics are published numbers. {source}" for source in sources]
    if any(line.clean is not None for line in results.lines):
        notes.append("clean: accuracy in % of the base classifier without noise, whole test set.")
    notes.append("ACR: mean over all images of the radius, 0 where not correct.")
    notes.append("Abstentions count as wrong at every radius.")
    return "\n".join(["## How to read this\n", *(f"- {note}" for note in notes), ""])


def _about_sizes(results: Results) -> list[str]:
    """Say what was drawn, the radius it can reach, and where rows are about other images."""
    notes = []
    sizes = {
        (line.settings["n"], line.settings["alpha"], line.settings["sigma"])
        for line in results.lines
        if line.images and "n" in line.settings and "alpha" in line.settings
    }
    for n, alpha, sigma in sorted(sizes):
        most = certified_radius(float(clopper_pearson_lower(n, n, alpha)), sigma)
        notes.append(
            f"n = {n:,} draws, alpha = {alpha:g} per image, sigma = {sigma:g}: no radius above "
            f"{int(1000 * most) / 1000:.3f} can be certified."
        )
    audits = {
        (line.settings["audit"], line.settings["alpha"], line.settings["sigma"])
        for line in results.lines
        if line.images and line.method == "srs" and type(line.settings.get("audit")) is int
    }
    for drawn, alpha, sigma in sorted(audits):
        most = certified_radius(alpha ** (1 / drawn), sigma)
        notes.append(
            f"{drawn:,} audited draws, alpha = {alpha:g}, sigma = {sigma:g}: `srs` certifies no "
            f"radius above {int(1000 * most) / 1000:.3f}, were all labels right (alpha^(1/K))."
        )
    certified = {frozenset(record["index"] for record in rows) for rows in results.records.values()}
    if len(certified) > 1:
        notes.append("WARNING: not all rows are about the same images; see `images`.")
    machines = {
        f"{e['machine']} {e['device']}, {e['threads']} threads, torch {e['torch']}"
        for line in results.lines
        for e in line.environments
    }
    return [*notes, *(f"Ours ran on: {machine}." for machine in sorted(machines))]
