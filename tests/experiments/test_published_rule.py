"""The experiment of docs/theory/published.md, at a small size."""

from __future__ import annotations

import json
import sys

import pytest

from experiments import published_rule


def test_only_the_published_rules_claim_too_much(tmp_path, monkeypatch, capsys):
    out = tmp_path / "results" / "rule"
    sizes = ["--trials", "3", "--n", "2000", "--chains", "200", "--alpha", "0.01"]
    monkeypatch.setattr(sys, "argv", ["published_rule", "--out", str(out), *sizes])
    published_rule.main()
    found = json.loads(out.with_suffix(".json").read_text())
    assert found["true_radius_over_sigma"] == pytest.approx(0.2533, abs=1e-4)  # Phi^-1(0.6)
    counts = {
        name: {rule: tally["violations"] for rule, tally in drift["rules"].items()}
        for name, drift in found["drifts"].items()
    }
    assert all(count == 0 for count in counts["none"].values())
    for name in ("sticks", "bursts late", "drifts in part"):
        assert counts[name]["published code"] >= 2
        valid = ("srs (Theorem A')", "srs, planned", "standard")
        assert [counts[name][rule] for rule in valid] == [0, 0, 0]
    assert counts["bursts late"]["Theorem 3.1"] >= 2
    table = out.with_suffix(".md").read_text()
    assert "| bursts late | standard | 0 of 3 |" in table
    assert table in capsys.readouterr().out
