"""The reference classifier on the fast cell: margins, precisions, threads."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from deqcert.data import load_data
from deqcert.models import load_model
from deqcert.smoothing.classifier import ReferenceClassifier
from tests.smoothing.fast_and_plain import assert_fast_labels_are_plain

pytest.importorskip("numba")

SIGMA = 0.5


@pytest.fixture(scope="module")
def model():
    return load_model("mdeq-digits-s050")


@pytest.fixture(scope="module")
def images():
    data = load_data("digits", split="test")
    clean = torch.stack([data[i].image for i in range(300)])
    return clean + SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(8))


@pytest.fixture(scope="module")
def classifier(model):
    return ReferenceClassifier(model, model.solver, sigma=SIGMA)


def test_fast_labels_are_the_plain_ones_outside_the_margin(classifier, images):
    assert_fast_labels_are_plain(classifier, images)


def test_leads_depend_on_neither_batch_nor_threads(classifier, images):
    whole = classifier.labelled(images)[0]
    before = torch.get_num_threads()
    try:
        for threads, size in ((1, 16), (2, 100), (2, 300)):
            torch.set_num_threads(threads)
            found = [classifier.labelled(part)[0] for part in images.split(size)]
            assert np.array_equal(np.concatenate([f.label for f in found]), whole.label)
            leads = np.concatenate([f.lead for f in found])
            assert float(np.abs(leads - whole.lead).max()) < classifier.margin
    finally:
        torch.set_num_threads(before)


def test_bfloat16_is_another_classifier_with_leads_as_fine(model, classifier, images):
    half = ReferenceClassifier(model, model.solver, sigma=SIGMA, precision="bfloat16")
    assert half.reference.precision == "bfloat16"
    assert half.margin < 1e-3
    found, usual = half.labelled(images)[0], classifier.labelled(images)[0]
    assert float((found.label == usual.label).mean()) > 0.98
    assert float((found.lead > half.margin).mean()) > 0.99


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
from deqcert.errors import ConfigurationError
from deqcert.models import from_functions, load_model
from deqcert.smoothing.classifier import ReferenceClassifier

model = load_model("mdeq-digits-s050")
ReferenceClassifier(model, model.solver, sigma=0.5)
try:
    ReferenceClassifier(model, model.solver, sigma=0.5, precision="bfloat16")
except ConfigurationError as error:
    print(error)
"""


def test_bfloat16_without_the_fast_cell_is_refused_as_another_classifier():
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_NUMBA], capture_output=True, text=True, check=True
    )
    assert "pip install 'deqcert[fast]'" in found.stdout
