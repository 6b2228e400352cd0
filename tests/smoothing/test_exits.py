"""Early exits of a reference classifier: which rows stop where, what counts near a threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import deqcert as dc
from deqcert.checks import AttackSpec, attack_run, verify
from deqcert.errors import ConfigurationError
from deqcert.models import EquilibriumModel, inference_copy, solve_rows
from deqcert.models.rows import top_two
from deqcert.smoothing.classifier import NO_CLASS, labels_of
from deqcert.smoothing.margin import NO_LEAD
from deqcert.solvers import SolverSpec, Status

EXITS = "picard:8,exits=1@1.5+2@0.4"


@pytest.fixture(scope="module")
def model() -> EquilibriumModel:
    return inference_copy(dc.load_model("mdeq-digits-s050"))


@pytest.fixture(scope="module")
def noisy() -> Tensor:
    images = torch.stack([dc.load_data("digits")[k].image for k in range(300)])
    return images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def test_every_row_keeps_the_logits_of_the_first_exit_it_passes(model, noisy):
    by_steps = {k: solve_rows(model, noisy, f"picard:{k}")[0] for k in (1, 2, 8)}
    lead = {k: top_two(logits)[0] for k, logits in by_steps.items()}
    first, second = lead[1] > 1.5, (lead[1] <= 1.5) & (lead[2] > 0.4)
    steps = torch.where(first, 1, torch.where(second, 2, 8))
    assert min(int((steps == k).sum()) for k in (1, 2, 8)) >= 5
    logits, solution = solve_rows(model, noisy, EXITS)
    assert torch.equal(solution.steps, steps.int())
    assert torch.equal(solution.cell_evaluations, steps.int())
    wanted = torch.stack([by_steps[int(k)][row] for row, k in enumerate(steps)])
    assert torch.allclose(logits, wanted, rtol=0, atol=1e-4)
    assert torch.equal(logits.argmax(1), wanted.argmax(1))
    distance = torch.minimum(
        (lead[1] - 1.5).abs(), torch.where(first, torch.inf, (lead[2] - 0.4).abs())
    )
    assert torch.allclose(solution.clearance, distance, rtol=0, atol=1e-4)


def test_residuals_and_rows_are_those_of_the_last_step_taken(model, noisy):
    _, solution = solve_rows(model, noisy, EXITS)
    assert solution.state == ()
    for k in (1, 2, 8):
        rows = (solution.steps == k).nonzero().squeeze(1)
        _, plain = solve_rows(model, noisy[rows], f"picard:{k}")
        assert torch.allclose(solution.residual[rows], plain.residual, rtol=0.05)
    assert solution.rows_evaluated >= int(solution.cell_evaluations.sum())


def test_thresholds_at_the_ends_give_the_plain_solves(model, noisy):
    everyone, _ = solve_rows(model, noisy, "picard:8,exits=2@0.0")
    nobody, solution = solve_rows(model, noisy, "picard:8,exits=2@1e9")
    assert torch.equal(everyone, solve_rows(model, noisy, "picard:2")[0])
    assert torch.allclose(nobody, solve_rows(model, noisy, "picard:8")[0], rtol=0, atol=1e-4)
    assert int(solution.steps.min()) == 8


def test_a_lead_near_a_threshold_is_no_clear_label(model, noisy):
    """Whichever way an exit is decided there, the draw does not count."""
    lead, _ = top_two(solve_rows(model, noisy, "picard:1")[0])
    row = int(lead.argmax())  # a clear label by itself
    threshold = float(lead[row])
    for nudge in (-1e-5, 1e-5):
        spec = SolverSpec("picard", 8, exits=((1, threshold + nudge),))
        logits, solution = solve_rows(model, noisy, spec)
        labels = labels_of(logits, solution)
        assert solution.steps[row] == (1 if nudge < 0 else 8)
        assert labels.lead[row] < 1e-3 < threshold
        assert labels.clear(1e-3)[row] == NO_CLASS
        assert labels.label[row] >= 0


def test_rows_that_fail_end_at_the_next_exit_and_disturb_no_other(model, noisy):
    broken = noisy.clone()
    broken[7] = torch.nan
    logits, solution = solve_rows(model, broken, EXITS)
    found = labels_of(logits, solution)
    others = np.arange(len(noisy)) != 7
    assert found.label[7] == NO_CLASS
    assert found.lead[7] == 0
    assert solution.status[7] == int(Status.NONFINITE)
    assert solution.steps[7] == 1
    whole = labels_of(*solve_rows(model, noisy, EXITS))
    assert np.array_equal(found.label[others], whole.label[others])


def test_the_margin_covers_the_leads_at_the_exits_and_at_the_end():
    model = dc.load_model("mdeq-digits-s050")
    margins = {
        solver: dc.Certifier(
            model, sigma=0.5, method="standard", reference=solver
        ).classifier.margin
        for solver in ("picard:1", "picard:2", "picard:8", EXITS)
    }
    assert margins[EXITS] == max(margins[f"picard:{k}"] for k in (1, 2, 8)) < NO_LEAD


def test_certificates_name_the_exits_and_cost_what_was_evaluated():
    """Sound like any other classifier (THEORY 1.3), with the labels of no other one."""
    certifier = dc.Certifier(
        dc.load_model("mdeq-digits-s050"), sigma=0.5, n=500, method="standard", reference=EXITS
    )
    image = dc.load_data("digits")[3].image
    found = certifier.certify(image, seed=0)
    assert found.reference.solver == EXITS
    assert 600 < found.cell_evaluations < 4 * 600
    again, solution = certifier.classifier.labelled(
        certifier.sampler(image, seed=0, index=0).noisy("estimation", range(500))
    )
    counts = np.bincount(again.clear(found.reference.margin), minlength=10)
    assert counts.tolist() == list(found.counts)
    assert int(solution.steps.sum()) < found.cell_evaluations


@pytest.mark.parametrize("name", ["serial", "warmup"])
def test_solvers_of_serialized_draws_take_no_exits(name):
    model = dc.load_model("mdeq-digits-s050")
    with pytest.raises(ConfigurationError, match=f"{name} takes no exits"):
        dc.Certifier(model, sigma=0.5, **{name: "picard:3,exits=1@0.5"})


def test_serialized_draws_of_a_reference_with_exits_have_defaults_without():
    model = dc.load_model("mdeq-digits-s050")
    certifier = dc.Certifier(model, sigma=0.5, n=1000, audit=100, reference=EXITS)
    assert certifier.settings.serial == "anderson:3"
    assert certifier.settings.warmup == "picard:8"
    assert certifier.certify(dc.load_data("digits")[3].image, seed=0).reference.solver == EXITS


def test_a_model_cannot_have_exits_of_its_own():
    """Its forward pass returns the logits of one state, without looking at them on the way."""
    from tests.problems import LinearDEQ

    with pytest.raises(ConfigurationError, match="a model's own solver takes no exits"):
        LinearDEQ(solver="picard:3,exits=1@0.5")


def test_rows_meet_in_larger_batches_where_the_memory_allows():
    digits = dc.load_model("mdeq-digits-s050")
    plain = dc.Certifier(digits, sigma=0.5, method="standard", reference="picard:8")
    assert plain.batch_size == 400
    exits = dc.Certifier(digits, sigma=0.5, method="standard", reference=EXITS)
    assert exits.batch_size == 2000


def test_a_run_with_exits_is_replayed_to_the_bit_and_withstands_attacks(tmp_path):
    """Attacks follow the gradient of all steps and are judged by the classifier as it is."""
    certifier = dc.Certifier(
        dc.load_model("mdeq-digits-s050"), sigma=0.5, n=200, method="standard", reference=EXITS
    )
    run = dc.certify_dataset(
        certifier, dc.load_data("digits"), out=tmp_path / "run", limit=3, seed=0
    )
    found = verify(run.path, replays=3, seed=0)
    assert found.clean, found.problems
    assert len(found.replayed) == 3
    spec = AttackSpec(distances=(0.5,), steps=3, samples=4, n=100)
    attacked = attack_run(run.path, spec=spec, limit=1, seed=0)
    assert attacked.fallen_inside == ()
