"""Every script runs at a tiny size, goes on where it was stopped, and makes its table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import certify_beside
import cost_against_size
import end_to_end
import factors
import pytest
import same_work
import suite
import tables

SHORT = "--model mdeq-digits-s050 --data digits --threads 1"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_factors(tmp_path, call, monkeypatch):
    kept = ("as trained, 30 Anderson steps", "few steps", "few steps, serialized")
    short = {"anderson:30": "anderson:4"}
    steps = [
        replace(s, reference=short.get(s.reference, s.reference))
        for s in factors.STEPS
        if s.name in kept
    ]
    monkeypatch.setattr(factors, "STEPS", steps)
    line = f"{SHORT} --images 2 --n 100 --srs-n 400 --out {tmp_path / 'factors'}"
    call(factors.main, line)
    found = read(tmp_path / "factors.json")
    rows = found["summary"]
    assert rows[kept[0]]["cell_evaluations_per_draw"] == 4
    assert rows["few steps"]["cell_evaluations_per_draw"] == 3
    assert rows["few steps"]["timed_draws"] == 200
    assert (tmp_path / "factors.svg").exists()
    call(factors.main, line)
    assert read(tmp_path / "factors.json") == found
    assert "few steps, serialized" in tables.summary(tmp_path)


def test_plain_cells_come_back():
    model = factors.load("mdeq-digits-s050")
    work = factors.Work(n=100)
    steps = {s.form: s for s in factors.STEPS if s.precision == "float32"}
    short = {form: factors.Step(name=form, form=form, reference="picard:2") for form in steps}
    made = {form: factors.prepared(step, model, work, 100) for form, step in short.items()}
    cells = {form: type(c.classifier.model.f).__name__ for form, c in made.items()}
    assert cells["trained"] == cells["folded"] == "MDEQCell"
    image = factors.dc.load_data("digits")[0].image
    counts = {c.certify(image, seed=0).counts for c in made.values()}
    assert len(counts) == 1


def test_cost_against_size(tmp_path, call):
    line = (
        "--models mdeq-digits-s050 mdeq-digits:random --batch-sizes 16 32 --batches 1 --images 2 "
        f"--threads 1 --out {tmp_path / 'cost_against_size.json'}"
    )
    call(cost_against_size.main, line)
    results = read(tmp_path / "cost_against_size.json")["results"]
    assert len(results) == 4
    assert all(r["ms_per_draw"] > 0 and len(r["image_seconds"]) == 2 for r in results.values())
    assert "mdeq-digits:random" in tables.summary(tmp_path)


def test_same_work(tmp_path, call, other):
    line = (
        "--models mdeq-digits-s050 --data digits --skip 20 --threads 1 --precisions float32 "
        "--srs --n 60 --n0 20 --batch 16 --rounds 2 --steps 4 --labels 32 "
        f"--out {tmp_path / 'same_work.json'}"
    )
    call(same_work.main, line, "--beside", other)
    found = read(tmp_path / "same_work.json")
    key = "mdeq-digits-s050, 1 thread"
    assert found["results"][f"{key}, labels"]["differ"] == 0
    assert found[key]["timed_draws"] == 160
    assert found[key]["other"]["cell_evaluations_per_draw"] == 4
    assert found[key]["ours float32"]["other_over_ours"] > 0
    # 3 steps for each of 20 + 10,000 draws.
    assert found["results"][f"{key}, serialized"]["cell_evaluations_scaled"] == pytest.approx(30060)
    assert "other, serialized" in tables.summary(tmp_path)


def test_certify_beside(tmp_path, call, other):
    line = (
        f"--images 2 --n 500 --batch 32 --steps 4 --out {tmp_path / 'certify_beside.json'} --beside"
    )
    call(certify_beside.main, line, other)
    found = read(tmp_path / "certify_beside.json")
    assert found["results"]["labels"]["differ"] == 0
    assert found["summary"]["further_apart_than_chance"] == 0
    assert "Certificates elsewhere" in tables.summary(tmp_path)


def test_radii_apart_are_counted():
    work = certify_beside.Work(n=1000)
    ours = {"prediction": 1, "radius": 0.3, "counts": [0, 800], "seconds": 1.0}
    images = [
        {"ours": ours, "other": {"prediction": 1, "radius": radius, "seconds": 2.0}}
        for radius in (0.34, 0.45, 0.25)
    ]
    images.append({"ours": ours, "other": {"prediction": 2, "radius": 0.34, "seconds": 2.0}})
    found = certify_beside.summary(images, work)
    # 2.6 standard deviations of a difference are 47 draws: 753 certify 0.275, 847 certify 0.437.
    assert found["further_apart_than_chance"] == 3
    assert found["other_over_ours"] == 2.0


def test_end_to_end_goes_on_image_by_image(tmp_path, call, other):
    line = (
        f"{SHORT} --precision float32 --steps 4 --skip 20 --n 300 --slow-n 150 "
        f"--timed 1 --timed-n 100 --labels 16 --out {tmp_path / 'end_to_end'} --beside"
    )
    call(end_to_end.main, line, other, "--images", "2")
    first = read(tmp_path / "end_to_end.json")
    assert first["summary"]["images"] == 2
    assert first["summary"]["n_of_pairs"] == 150
    assert first["summary"]["labels"]["differ"] == 0
    assert first["summary"]["time"]["ratio"] > 0
    image = first["results"]["image 20"]
    assert image["ours"]["cell_evaluations"] == 3 * (100 + 300)
    call(end_to_end.main, line, other, "--images", "3", "--minutes", "0")
    assert read(tmp_path / "end_to_end.json")["summary"]["images"] == 2
    call(end_to_end.main, line, other, "--images", "3")
    last = read(tmp_path / "end_to_end.json")
    assert last["summary"]["images"] == 3
    assert last["results"]["image 20"] == image
    assert "Average certified radius" in tables.summary(tmp_path)


def test_suite_keeps_what_is_there(tmp_path, call, monkeypatch):
    tiny = "--models mdeq-digits-s050 --batch-sizes 16 --batches 1 --images 1"
    script = "cost_against_size.py"
    parts = [suite.Part(name="cost_against_size", script=script, full="", quick=tiny, keeps=True)]
    broken = suite.Part(name="broken", script=script, full="", quick="--models no-such-model")
    monkeypatch.setattr(suite, "PARTS", [*parts, broken])
    line = f"--quick --out {tmp_path}"
    with pytest.raises(SystemExit, match="failed: broken"):
        call(suite.main, line)
    first = read(tmp_path / "suite.json")
    assert list(first["results"]) == ["cost_against_size"]
    assert "mdeq-digits-s050" in (tmp_path / "summary.md").read_text()
    monkeypatch.setattr(suite, "PARTS", parts)
    call(suite.main, line)
    assert read(tmp_path / "suite.json")["results"] == first["results"]


def test_suite_names_scripts_that_are_there():
    for part in suite.PARTS:
        assert (suite.HERE / part.script).exists()


def test_document_holds_the_tables_of_the_committed_results():
    folder = suite.HERE / "results"
    text = (suite.HERE.parent / "docs" / "benchmarks.md").read_text()
    made = text.split(tables.BEGIN)[1].split(tables.END)[0]
    assert made.strip() == tables.summary(folder).strip()
