"""Numbers are computed in the types that tensors have, whatever surrounds the call."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import torch

from deqcert.models import load_model
from deqcert.models.devices import named_precision, product_precisions
from deqcert.runners.bench import packed
from deqcert.smoothing import Certifier

_SWITCHES = """
import torch
from deqcert.models.devices import named_precision, product_precisions
{before}
with named_precision(torch.device("cuda")):
    inside = product_precisions()
both = {{str(one) for one in (*inside, *product_precisions())}}
print(sorted(both), torch.backends.cudnn.allow_tf32)
"""


@pytest.mark.parametrize(
    "before",
    [
        "torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True",
        "torch.set_float32_matmul_precision('medium')",
        "torch.backends.fp32_precision = 'tf32'",
        "torch.backends.cudnn.conv.fp32_precision = 'tf32'",
    ],
)
def test_no_tf32_however_it_was_switched_on(before: str):
    """In a process of its own: the switches are those of a process."""
    if "fp32_precision" in before and not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("this PyTorch has no switches of that kind")
    code = _SWITCHES.format(before=before)
    told = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert told in ("['ieee'] False", "['False'] False")


def test_here_they_are_read_as_they_are():
    assert len(product_precisions()) >= 2
    with torch.autocast("cpu"), named_precision(torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mdeq-digits-s050", {"method": "standard"}),
        ("mdeq-digits-s050", {"method": "standard", "reference": "picard:3,exits=1@0.5"}),
        ("mdeq-digits-s050", {"method": "srs", "audit": 60, "start": "clean"}),
        ("mdeq-digits-s050", {"method": "srs", "audit": 60, "start": "linear"}),
        ("mondeq-fc-s050", {"method": "srs", "audit": 60}),
        ("mondeq-fc-s050", {"method": "proved", "start": "clean"}),
    ],
)
def test_autocast_around_a_certificate_changes_nothing(name: str, settings: dict):
    shape = load_model(name).input_shape
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    made = Certifier(load_model(name), sigma=0.5, n0=40, n=120, chains=40, **settings)
    usual = made.certify(image, seed=0).to_json()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = Certifier(load_model(name), sigma=0.5, n0=40, n=120, chains=40, **settings)
        for certifier in (made, inside, pickle.loads(packed(made))):
            found = certifier.certify(image, seed=0).to_json()
            assert {**found, "seconds": 0} == {**usual, "seconds": 0}
