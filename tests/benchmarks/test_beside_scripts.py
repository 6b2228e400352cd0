"""Scripts that measure beside another implementation run at a tiny size, and can be interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import certify_beside
import end_to_end
import pytest
import same_work
import tables


def read(path: Path) -> dict:
    return json.loads(path.read_text())


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
        "--model mdeq-digits-s050 --data digits --threads 1 --precision float32 --steps 4 "
        "--skip 20 --n 300 --slow-n 150 "
        f"--timed 1 --timed-n 100 --labels 16 --out {tmp_path / 'end_to_end'} --beside"
    )
    call(end_to_end.main, line, other, "--images", "3", "--minutes", "0")
    first = read(tmp_path / "end_to_end.json")
    assert first["summary"]["images"] == 0
    assert first["results"]["labels"]["differ"] == 0
    call(end_to_end.main, line, other, "--images", "2")
    last = read(tmp_path / "end_to_end.json")
    assert last["results"]["time 0"] == first["results"]["time 0"]
    assert last["summary"]["images"] == 2
    assert last["summary"]["n_of_pairs"] == 150
    assert last["summary"]["time"]["ratio"] > 0
    assert last["results"]["image 20"]["ours"]["cell_evaluations"] == 3 * (100 + 300)
    assert "Average certified radius" in tables.summary(tmp_path)
