"""What a reader must know to read, and to compare, the numbers of a report."""

from __future__ import annotations

from collections.abc import Sequence

from deqcert.results.configuration import configuration_differences
from deqcert.results.run_folder import RunFolder
from deqcert.results.summary import Record, Summary

WARNING = "WARNING: "
# Shown as lines of the table, or the very images that are compared apart.
SHOWN = {"method", "sigma", "n", "data", "split", "data_digest", "class_names", "skip"}


def notes_on(
    folders: Sequence[RunFolder],
    records: Sequence[Sequence[Record]],
    summaries: Sequence[Summary],
) -> list[str]:
    """Return the notes, warnings first."""
    return [
        *_no_guarantee(summaries),
        *_other_images(folders, records),
        *_other_settings(folders, summaries),
        _reading(summaries),
    ]


def _no_guarantee(summaries: Sequence[Summary]) -> list[str]:
    return [
        f"{WARNING}{summary.name} has NO GUARANTEE: its radii are not certified "
        "(the published rule, shown for comparison; THEORY 3)."
        for summary in summaries
        if summary.guarantee == "none"
    ]


def _other_images(folders: Sequence[RunFolder], records: Sequence[Sequence[Record]]) -> list[str]:
    """Warn where the runs are not about the same images."""
    contents = {str(folder.configuration.get("data_digest")) for folder in folders}
    if len(contents) > 1:
        return [f"{WARNING}the runs are about different data; their rows are not comparable."]
    images = [frozenset(row["index"] for row in rows) for rows in records]
    if len(set(images)) > 1:
        shared = len(frozenset.intersection(*images))
        return [
            f"{WARNING}the runs are about different images of one data set ({shared} in common); "
            "finish them, or compare with care."
        ]
    return []


def _other_settings(folders: Sequence[RunFolder], summaries: Sequence[Summary]) -> list[str]:
    """Name settings that differ and that the table does not show."""
    first = folders[0].configuration
    keys: dict[str, None] = {}
    for folder in folders[1:]:
        for key, _, _ in configuration_differences(first, folder.configuration):
            keys[key] = None
    hidden = [key for key in keys if key.split(".")[0] not in SHOWN]
    notes = [f"The runs also differ in {', '.join(hidden)}."] if hidden else []
    if sum(summary.guarantee != "none" for summary in summaries) > 1:
        notes.append(
            "Each certificate holds with its own alpha; taking the better of two runs per image "
            "needs alpha to be split between them beforehand (THEORY 2)."
        )
    return notes


def _reading(summaries: Sequence[Summary]) -> str:
    """Explain the units and the brackets."""
    text = "Radii r are L2, in pixel units (pixels in [0, 1]); abstentions count as wrong."
    if any(summary.high_probability_accuracy is not None for summary in summaries):
        sure = 100 * (1 - summaries[0].rho)
        text += (
            f" In brackets: lower bound of the share whose claim is true, with {sure:g} % "
            "confidence."
        )
    return text
