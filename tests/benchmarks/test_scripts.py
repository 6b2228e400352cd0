"""Every script runs at a tiny size, goes on where it was stopped, and makes its table."""

from __future__ import annotations

import argparse
import importlib
import json
from dataclasses import replace
from pathlib import Path

import cost_against_size
import factors
import fast_labels
import on_gpu
import pytest
import suite
import tables


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_factors(tmp_path, call, monkeypatch):
    kept = (
        "as trained, 30 Anderson steps",
        "few steps",
        "few steps, serialized",
        "few steps, early exits",
    )
    short = {"anderson:30": "anderson:4"}
    steps = [
        replace(s, reference=short.get(s.reference, s.reference))
        for s in factors.STEPS
        if s.name in kept
    ]
    monkeypatch.setattr(factors, "STEPS", steps)
    line = (
        "--model mdeq-digits-s050 --data digits --threads 1 --images 2 "
        f"--n 100 --srs-n 400 --out {tmp_path / 'factors'}"
    )
    call(factors.main, line)
    found = read(tmp_path / "factors.json")
    rows = found["summary"]
    assert rows[kept[0]]["cell_evaluations_per_draw"] == 4
    assert rows["few steps"]["cell_evaluations_per_draw"] == 3
    assert rows["few steps"]["timed_draws"] == 200
    assert 1 < rows["few steps, early exits"]["cell_evaluations_per_draw"] < 3
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


def test_fast_labels_go_on_and_agree(tmp_path, call, monkeypatch):
    assert {"mdeq-digits-s050", "mdeq-small-s050"} <= set(fast_labels.trained())
    monkeypatch.setattr(fast_labels, "SLICE", 300)
    out = f"--models mdeq-digits-s050 --draws 500 --out {tmp_path / 'fast_labels'}"
    call(fast_labels.main, out)
    content = read(tmp_path / "fast_labels.json")
    (row,) = content["summary"].values()
    assert (row["draws"], row["float32_differs_outside_margin"]) == (500, 0)
    assert 0 < row["largest_change_of_lead"] <= max(row["margins"].values())
    assert 0.6 < row["accuracy_under_noise"]["plain"] < 0.95
    slices = [key for key in content["results"] if not key.endswith("|model")]
    assert [content["results"][key]["draws"] for key in slices] == [300, 200]
    del content["results"][slices[1]], content["summary"]
    (tmp_path / "fast_labels.json").write_text(json.dumps(content))
    call(fast_labels.main, out)
    again = read(tmp_path / "fast_labels.json")
    assert (list(again["results"]), again["summary"]) == (
        [*content["results"], slices[1]],
        {"mdeq-digits-s050": row},
    )
    assert "| mdeq-digits-s050 | picard:3 | 500 | 0 | 0 |" in tables.summary(tmp_path)


def test_on_gpu_stops_in_time_and_goes_on(tmp_path, call):
    out = tmp_path / "on_gpu"
    line = f"--device cpu --models mdeq-digits-s050 --precisions float32 --n 100 --out {out}"
    line += " --solvers picard:2"
    call(on_gpu.main, f"{line} --minutes 0")
    assert not out.with_suffix(".json").exists()
    call(on_gpu.main, line)
    results = read(out.with_suffix(".json"))["results"]
    assert [key.split(", ")[-2:] for key in results] == [
        [stream, way] for stream in ("device", "host") for way in ("plain", "fused", "graphs")
    ]
    # Nothing is said of which is larger: peaks were measured while other tests were computing.
    for name in ("floor_ms_per_draw", "ms_per_draw", "gigaflops_per_draw"):
        assert all(row[name] > 0 for row in results.values()), name
    assert {row["recordings"] for row in results.values()} == {0}  # a CPU has no graphs
    assert len(out.with_suffix(".md").read_text().splitlines()) == 2 + len(results)
    before = out.with_suffix(".json").read_bytes()
    call(on_gpu.main, f"{line} --minutes 0")
    assert out.with_suffix(".json").read_bytes() == before


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


@pytest.mark.parametrize("quick", [True, False])
def test_suite_gives_options_that_its_scripts_take(monkeypatch, quick):
    class UnderstoodError(Exception):
        """Raised in place of the measurement."""

    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser):
        parse(parser)
        raise UnderstoodError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    options = argparse.Namespace(quick=quick, threads=1, again=True)
    for part in suite.PARTS:
        if quick and part.quick is None:
            continue
        line = suite.command(part, Path("bench"), options)
        monkeypatch.setattr("sys.argv", line[1:])
        with pytest.raises(UnderstoodError):
            importlib.import_module(Path(part.script).stem).main()


def test_document_holds_the_tables_of_the_committed_results():
    folder = suite.HERE / "results"
    text = (suite.HERE.parent / "docs" / "benchmarks.md").read_text()
    made = text.split(tables.BEGIN)[1].split(tables.END)[0]
    assert made.strip() == tables.summary(folder).strip()
