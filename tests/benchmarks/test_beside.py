"""Another implementation is handed the same weights, and its failures are said."""

from __future__ import annotations

import beside
import pytest
import torch

import deqcert as dc
from deqcert.models import MDEQ, build, import_checkpoint, weights_digest


def test_weights_travel_in_the_public_format(tmp_path):
    torch.manual_seed(3)
    model = build("mdeq-small")
    assert isinstance(model, MDEQ)
    torch.save({"state_dict": beside.public_state(model)}, tmp_path / "weights.pth.tar")
    back, _ = import_checkpoint(tmp_path / "weights.pth.tar", architecture="mdeq-small")
    assert weights_digest(back) == weights_digest(model)
    assert beside.architecture_of(model) == "mdeq-small"


def test_the_same_labels_from_a_process_of_its_own(other):
    model = dc.load_model("mdeq-digits")
    assert isinstance(model, MDEQ)
    images, _ = dc.load_data("digits").batch(range(16))
    model.solver = dc.SolverSpec("anderson", 30)
    with beside.Beside(other) as process:
        assert process.facts["name"] == "other"
        assert process.load(model, threads=1)["architecture"] is None
        found = process.labels(images, steps=30, tolerance=0.0, batch=400)
    assert found["labels"] == model(images).argmax(1).tolist()
    assert found["cell_evaluations"] == 30 * 16


def test_an_error_elsewhere_is_an_error_here(other):
    with beside.Beside(other) as process:
        with pytest.raises(RuntimeError, match="no attribute 'dance'"):
            process.ask(do="dance")
        with pytest.raises(RuntimeError, match="ended with 3"):
            process.ask(do="end")
