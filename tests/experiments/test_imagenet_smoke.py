"""The committed smoke run of ImageNet: certificates of random weights, no accuracy claimed."""

from __future__ import annotations

import json

from experiments.command import RESULTS

from deqcert.results import RunFolder

FOLDER = RESULTS / "imagenet-small-small"
SMOKE = {"smoke": "standard", "smoke-srs": "audited"}


def test_it_went_from_files_to_certificates_and_claims_no_accuracy():
    rows = {row["name"]: row for row in json.loads((FOLDER / "table.json").read_text())["rows"]}
    for name, guarantee in SMOKE.items():
        run = RunFolder.open(FOLDER / "runs" / name)
        records = list(run.records())
        assert [record["index"] for record in records] == [0, 1]
        assert all(sum(record["counts"]) == record["n"] for record in records)
        assert {record["status"] for record in records} <= {"certified", "abstained"}
        assert {record["guarantee"] for record in records} == {guarantee}
        assert len(run.configuration["class_names"]) == 63
        row = rows[name]
        assert (row["images"], row["guarantees"]) == (2, {guarantee: 2})
        assert row["accuracy"] is row["high_probability"] is row["average_radius"] is None
    assert all(
        row["images"] == 0 for name, row in rows.items() if name not in ("smoke", "smoke-srs")
    )


def test_no_pixels_of_the_images_are_kept():
    """The terms of ImageNet do not let its images be passed on."""
    kept = {path.suffix for path in FOLDER.rglob("*") if path.is_file() and path.suffix}
    assert kept == {".json", ".jsonl", ".md", ".tsv", ".txt"}
    assert not list(FOLDER.rglob("thumbnails*"))
