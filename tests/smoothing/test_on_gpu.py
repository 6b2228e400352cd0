"""What a GPU alone can show: that its kernels, its graphs and its batches give the same labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deqcert import Certifier
from deqcert.data import load_data
from deqcert.models import BATCH_SIZES, load_model, solve_rows
from deqcert.models.graphs import unrecorded
from deqcert.models.trees import leaves
from deqcert.smoothing.classifier import ReferenceClassifier
from deqcert.solvers import SolverSpec
from tests.models.made import with_random_weights
from tests.smoothing.fast_and_plain import assert_fast_labels_are_plain

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

DEVICE, SIGMA = "cuda", 0.5
SPECS = ["picard:3", "anderson:9"]


@pytest.fixture(scope="module")
def model():
    return load_model("mdeq-digits-s050")


@pytest.fixture(scope="module")
def images():
    data = load_data("digits", split="test")
    clean = torch.stack([data[i].image for i in range(200)]).repeat(2, 1, 1, 1)
    return clean + SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(8))


def classifier(model, spec, precision="float32"):
    return ReferenceClassifier(
        model, SolverSpec.parse(spec), sigma=SIGMA, device=DEVICE, precision=precision
    )


@pytest.mark.parametrize("spec", SPECS)
def test_fast_labels_are_the_plain_ones_outside_the_margin(model, images, spec):
    assert_fast_labels_are_plain(classifier(model, spec), images)


def test_labels_are_those_of_the_cpu_outside_both_margins(model, images):
    ours = classifier(model, "picard:3")
    there = ReferenceClassifier(model, SolverSpec.parse("picard:3"), sigma=SIGMA)
    found, expected = ours.labelled(images)[0], there.labelled(images)[0]
    clear = expected.lead > ours.margin + there.margin
    assert float(clear.mean()) > 0.98
    assert np.array_equal(found.label[clear], expected.label[clear])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("spec", SPECS)
def test_replays_give_the_same_bits(model, images, spec, precision):
    ours = classifier(model, spec, precision)
    x = images.to(DEVICE, ours.dtype)
    state = solve_rows(ours.model, x, "picard:1")[1].state
    for start in (None, state):
        for turn in range(9):
            rows = x.roll(turn, 0)
            found = solve_rows(ours.model, rows, spec, start)
            with unrecorded(ours.model):
                expected = solve_rows(ours.model, rows, spec, start)
            assert torch.equal(found[0], expected[0])
            pairs = zip(leaves(found[1].state), leaves(expected[1].state), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
            assert torch.equal(found[1].residual, expected[1].residual)
    assert len(ours.model.recorded_solves) >= 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_leads_depend_on_the_batch_within_the_margin_alone(model, images, precision):
    ours = classifier(model, "picard:3", precision)
    whole = ours.labelled(images)[0]
    for size in (1, 7, *BATCH_SIZES):
        found = ours.labelled(images[:size])[0]
        assert float(np.abs(found.lead - whole.lead[:size]).max()) < ours.margin


def test_kernels_do_not_depend_on_the_batch(model):
    ours = classifier(model, "picard:3")
    kernels, block = ours.model.f._kernels, ours.model.f._blocks[0]
    x = torch.randn(400, 32, 8, 8, device=DEVICE).contiguous(memory_format=torch.channels_last)
    whole = x.clone()
    kernels.end_block(whole, x, x, block.second, block.third)
    for rows in (slice(0, 1), slice(7, 30), slice(100, 228)):
        part = x[rows].clone()
        kernels.end_block(part, x[rows], x[rows], block.second, block.third)
        assert torch.equal(part, whole[rows])


def test_the_same_record_with_and_without_recordings(model):
    image = load_data("digits", split="test")[0].image
    found = []
    for recorded in (True, False):
        certifier = Certifier(model, sigma=SIGMA, n=2_000, method="standard", device=DEVICE)
        certifier.classifier.model.recorded_solves.active = recorded
        found.append(certifier.certify(image, seed=0))
    assert found[0].counts == found[1].counts
    assert found[0].radius == found[1].radius


def test_what_is_read_later_is_what_is_labelled_at_once(model, images):
    ours = classifier(model, "picard:3")
    parts = images.split(100)
    asked = [ours.ask(part) for part in parts]
    for part, one in zip(parts, asked, strict=True):
        found, spent = one.labels()
        expected, solution = ours.labelled(part)
        assert np.array_equal(found.label, expected.label)
        assert np.array_equal(found.lead, expected.lead)
        assert spent.residual.device.type == "cpu"
        assert torch.equal(spent.residual, solution.residual.cpu())


def test_large_models_have_fast_parts():
    large = with_random_weights("mdeq-large")
    for precision in ("float32", "bfloat16"):
        ours = classifier(large, "picard:2", precision).model
        kinds = [type(part).__name__ for part in (ours.stem, ours.f, ours.head)]
        assert kinds == ["GpuStem", "FusedCell", "GpuHead"]
