"""What a reader must know to read, and to compare, the numbers of a report."""

from __future__ import annotations

from collections.abc import Sequence

from deqcert.certificate import DETERMINISTIC
from deqcert.results.cohen import PUBLISHED, CohenLog
from deqcert.results.configuration import configuration_differences
from deqcert.results.run_folder import RunFolder
from deqcert.results.summary import L2, LINF, Record, Summary

WARNING = "WARNING: "
# Shown as lines of the table, or the very images that are compared apart.
SHOWN = {"method", "sigma", "n", "data", "split", "data_digest", "class_names", "skip"}
WORDS = {"weights_digest": "weights"}
ARCHITECTURE = "architecture"  # of which one difference says as much as ten


def notes_on(
    folders: Sequence[RunFolder | CohenLog],
    records: Sequence[Sequence[Record]],
    summaries: Sequence[Summary],
) -> list[str]:
    """Return the notes, warnings first; none without runs."""
    if not summaries:
        return []
    return [
        *_no_guarantee(summaries),
        *_published(folders),
        *_other_images(folders, records, summaries),
        *_other_settings(folders, summaries),
        *_deterministic(folders, summaries),
        _reading(summaries),
    ]


def _no_guarantee(summaries: Sequence[Summary]) -> list[str]:
    return [
        f"{WARNING}{summary.name} has NO GUARANTEE: its radii are not certified "
        "(the published rule, shown for comparison; docs/theory.md, 3)."
        for summary in summaries
        if summary.guarantee == "none"
    ]


def _published(folders: Sequence[RunFolder | CohenLog]) -> list[str]:
    """Say what is known, and what is not, of logs of others."""
    return [
        f"{log.path} is as published, its guarantee not checked ({_settings(log)}); radii as "
        "logged, often rounded to nearest, which can overstate them; its images are taken to be of "
        "the same data set."
        for log in folders
        if isinstance(log, CohenLog)
    ]


def _settings(log: CohenLog) -> str:
    """Return sigma, n and alpha of a log as far as they are known."""
    known = {key: log.configuration[key] for key in ("sigma", "n", "alpha")}
    given = [f"{key} {value:g}" for key, value in known.items() if value is not None]
    unknown = [key for key, value in known.items() if value is None]
    told = [", ".join(given) + " as given"] if given else []
    return "; ".join([*told, *([", ".join(unknown) + " unknown"] if unknown else [])])


def _claims_by_draws(summary: Summary) -> bool:
    """Whether a run claims certificates that may fail."""
    return summary.guarantee not in ("none", PUBLISHED) and bool(summary.alpha)


def _other_images(
    folders: Sequence[RunFolder | CohenLog],
    records: Sequence[Sequence[Record]],
    summaries: Sequence[Summary],
) -> list[str]:
    """Warn where the runs are not about the same images."""
    contents: dict[str, tuple[str, list[str]]] = {}
    for folder, summary in zip(folders, summaries, strict=True):
        # A log of others names no data: its images are taken to be those of the runs.
        if isinstance(folder, RunFolder):
            facts = folder.configuration
            data = " ".join(str(facts[key]) for key in ("data", "split") if facts.get(key))
            contents.setdefault(str(facts.get("data_digest")), (data, []))[1].append(summary.name)
    if len(contents) > 1:
        which = "; ".join(f"{data}: {', '.join(runs)}" for data, runs in contents.values())
        return [
            f"{WARNING}the runs are about different data ({which}); their rows are not comparable."
        ]
    images = [frozenset(row["index"] for row in rows) for rows in records]
    if len(set(images)) > 1:
        shared = len(frozenset.intersection(*images))
        return [
            f"{WARNING}the runs are about different images of one data set ({shared} in common); "
            "finish them, or compare with care."
        ]
    return []


def _other_settings(
    folders: Sequence[RunFolder | CohenLog], summaries: Sequence[Summary]
) -> list[str]:
    """Name settings that differ between runs of a kind and that the table does not show."""
    firsts: dict[str, RunFolder] = {}
    keys: dict[str, None] = {}
    for folder, summary in zip(folders, summaries, strict=True):
        if isinstance(folder, CohenLog):
            continue
        # Runs with and without noise, or in other norms, have other settings altogether.
        kind = summary.method if summary.guarantee == DETERMINISTIC else ""
        first = firsts.setdefault(kind, folder)
        pair = first.configuration, folder.configuration
        for key, _, _ in configuration_differences(*pair):
            whole = key.partition(".")[0]
            if whole != ARCHITECTURE:
                keys[key] = None
            elif all(whole in one for one in pair):  # runs of early versions do not tell
                keys[whole] = None
    hidden = [WORDS.get(key, key) for key in keys if key.split(".")[0] not in SHOWN]
    notes = [f"The runs also differ in {', '.join(hidden)}."] if hidden else []
    if sum(_claims_by_draws(summary) for summary in summaries) > 1:
        notes.append(
            "Each certificate holds with its own alpha; taking the better of two runs per image "
            "needs alpha to be split between them beforehand (docs/theory.md, 2)."
        )
    return notes


def _deterministic(
    folders: Sequence[RunFolder | CohenLog], summaries: Sequence[Summary]
) -> list[str]:
    """Say what certificates without noise are about, and that norms do not compare."""
    certain = [s for s in summaries if s.guarantee == DETERMINISTIC]
    if not certain:
        return []
    notes = [
        f"{', '.join(s.name for s in certain)}: deterministic, about the model's own class at its "
        "exact equilibrium, without a probability of failure; for monotone DEQs alone "
        "(docs/theory.md, 6)."
    ]
    if len(certain) < len(summaries):
        notes.append(
            "The other runs are about the smoothed class: another classifier, so that the better "
            "of both per image is a certificate of neither."
        )
    if any(folder.configuration.get("domain") == "pixels" for folder in folders):
        notes.append("interval: against images with pixels in [0, 1] alone.")
    if len({s.norm for s in summaries}) > 1:
        notes.append("L2 and Linf radii do not compare: each norm has its own table and curves.")
    return notes


def _reading(summaries: Sequence[Summary]) -> str:
    """Explain the units and the brackets."""
    norms = " and ".join(norm for norm in (L2, LINF) if any(s.norm == norm for s in summaries))
    text = f"Radii r are {norms}, in pixel units (pixels in [0, 1]); abstentions count as wrong."
    if any(s.high_probability_accuracy is not None and _claims_by_draws(s) for s in summaries):
        sure = 100 * (1 - summaries[0].rho)
        text += (
            f" In brackets: lower bound of the share whose claim is true, with {sure:g} % "
            "confidence."
        )
    return text
