"""The measurement of steps per draw: its rules, its starts, and the script itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import steps_per_draw
import steps_tables
import torch
from starts_tried import SharedJacobian, starts

from deqcert.solvers import SolverSpec
from tests.problems import SHAPE, LinearDEQ


def test_rows_stop_where_the_rule_says():
    """Three copies, four steps; worked out by hand."""
    found = steps_tables.outcomes(
        truth=1,
        reference=np.array([1, 1, 0]),
        labels=np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]]),
        leads=np.array([[0.9, 0.9, 0.9], [0.3, 0.6, 0.1], [0.6, 0.3, 0.1], [0.9, 0.9, 0.1]]),
        residuals=np.array([[0.5, 0.5, 0.5], [0.15, 0.3, 0.3], [0.1, 0.15, 0.3], [0, 0, 0.0]]),
        fitted=np.array([[0, 0, 1], [1, 1, 1]]),
    )
    assert found["anderson:30"] == "2 0 90 3 3"
    assert found["fitted start, picard:0"] == "1 3 0 3 3"
    assert found["fitted start, picard:1"] == "3 1 3 3 3"
    assert found["picard:2"] == "1 1 6 3 3"
    # Stops at steps 2, 3 and 4.
    assert found["picard:8:0.2"] == "2 0 9 3 3"
    # Leads above 0.5 from the second step on: steps 3, 2 (still wrong) and 4; asked from 2 on.
    assert found["picard:8, stable 1, lead 0.5"] == "1 1 9 6 3"
    # The label as in the step before, too: steps 3, 2 and 4, asked from the first on.
    assert found["picard:8, stable 2, lead 0.5"] == "1 1 9 9 3"


def test_a_linear_cell_is_solved_in_one_shared_step():
    """Of a linear cell the residuals of solved draws tell all there is to know."""
    model = LinearDEQ().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        seen, new = (model.inject(torch.rand(40, *SHAPE, generator=generator)) for _ in range(2))
        shared = SharedJacobian(model, seen, 2.0 * seen)
        begin = starts(
            model, torch.zeros(SHAPE), seen, 2.0 * seen, new, SolverSpec.parse("picard:30")
        )
        step = shared(begin["mean"], new)
        plain = model.cell(begin["mean"], new)
    torch.testing.assert_close(begin["linear"], 2.0 * new, atol=0.01, rtol=0)
    assert float((step - 2 * new).norm()) < 0.6 * float((plain - 2 * new).norm())


def test_the_script_runs_and_goes_on(tmp_path: Path, call):
    line = (
        "mdeq-digits-s050 --images 2 --copies 3 --serial-images 1 --draws 20 "
        f"--out {tmp_path / 'steps'}"
    )
    call(steps_per_draw.main, line)
    found = json.loads((tmp_path / "steps.json").read_text())
    assert len(found["results"]) == 1 + 2 + 1
    table = (tmp_path / "steps.md").read_text()
    assert "| picard:3 |" in table
    assert steps_tables.SETTLED in table
    call(steps_per_draw.main, line)
    assert json.loads((tmp_path / "steps.json").read_text()) == found
