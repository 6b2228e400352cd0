"""Weights compared on equal draws: the same ones are equal, broken ones worse by how much."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments.equal_training import compare, difference

from deqcert.errors import ConfigurationError
from deqcert.models import load_model, save_model, weights_digest
from experiments import equal_training


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two copies of a trained model, one of them broken: all its parameters are zero."""
    folder = tmp_path_factory.mktemp("weights")
    for name in ("same", "broken"):
        model = load_model("mdeq-digits-s050")
        if name == "broken":
            for parameter in dict(model.named_parameters()).values():
                torch.nn.init.zeros_(parameter)
        card = {**(model.card or {}), "weights": weights_digest(model)}
        save_model(model, folder / f"{name}.safetensors", card=card)
    return folder


def test_the_same_weights_are_equal_and_broken_ones_far_below(weights: Path):
    names = ["mdeq-digits-s050", "same", "broken", "mdeq-digits-s050=picard:1"]
    first, same, broken, short = compare(names, folder=weights, copies=2, limit=60)
    assert len(first.right) == 60
    assert max(first.right) == 2
    assert same.right == first.right
    # Of ten classes one is named, whatever the image.
    assert sum(broken.right) < 0.3 * 120 < 0.6 * 120 < sum(first.right)
    assert (first.evaluations, short.evaluations, short.solver) == (3.0, 1.0, "picard:1")
    assert short.right != first.right


def test_command_writes_what_it_found(monkeypatch, tmp_path: Path, weights: Path, capsys):
    out = tmp_path / "out"
    arguments = ["mdeq-digits-s050", "broken", "--weights", str(weights), "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["equal_training", *arguments, "--limit", "40"])
    equal_training.main()
    table = (out / "table.md").read_text()
    assert capsys.readouterr().out == table
    assert table.count("mdeq-digits-s050") == 1
    assert "40 test images, 1 noisy copy of each" in table
    found = json.loads((out / "results.json").read_text())
    shares = [100 * np.mean(one["right"]) for one in found["weights"]]
    for share in shares:
        assert f"| {share:.1f} |" in table
    assert f"| {shares[1] - shares[0]:+.1f} [" in table


def test_interval_covers_the_mean_and_shrinks():
    generator = np.random.default_rng(0)
    few, many = (generator.normal(0.2, 1.0, count) for count in (50, 5000))
    for values in (few, many):
        mean, low, high = difference(values, np.zeros(len(values)))
        assert mean == pytest.approx(values.mean())
        assert low < mean < high
        # Of a mean of so many, all but exactly normal, it is 2 x 1.96 standard errors wide.
        assert high - low == pytest.approx(3.92 * values.std() / len(values) ** 0.5, rel=0.15)
    assert difference(few, few) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["mdeq-digits-s050", "nowhere"], "no weights nowhere"),
        (["mdeq-digits-s050", "mdeq-digits-s025"], "different noise levels"),
    ],
)
def test_what_cannot_be_compared_is_an_error(names: list[str], message: str, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=message):
        compare(names, folder=tmp_path)
