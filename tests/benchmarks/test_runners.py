"""The benchmark of runners at a tiny size: both sides certify all images, and are counted alike."""

from __future__ import annotations

import importlib.util
import json

import pytest
import tables

import runners


def test_rates_leave_out_both_ends():
    # Two workers, one image a second each; starting up and running dry take longer.
    times = [3.0, 3.1, *(4 + k / 2 for k in range(20)), 20.0, 21.0]
    assert runners.rate(times[::-1], 2) == pytest.approx(2.0)


def test_a_small_run(tmp_path, call, monkeypatch):
    monkeypatch.setattr(runners, "RECORDS", 40)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # Ray takes long to start
    line = "--images 10 --n 64 --repeats 1 --reference picard:1 --threads 1 --out"
    call(runners.main, f"{line} {tmp_path / 'runners.json'}")
    found = json.loads((tmp_path / "runners.json").read_text())["results"]
    assert set(found) == {"overhead", "resume", "processes, turn 0"}
    assert min(found["processes, turn 0"].values()) > 0
    assert found["resume"]["records"] == 40
    assert "a run over a bare loop" in tables.summary(tmp_path)
