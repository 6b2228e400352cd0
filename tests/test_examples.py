"""The examples run, and do what they say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import torch

import deqcert as dc

EXAMPLES = Path(__file__).parents[1] / "examples"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_own_deq_is_about_fifteen_lines():
    source = (EXAMPLES / "own_deq.py").read_text()
    body = re.search(r"class OwnDEQ.*?(?=\n\n\ndef )", source, re.DOTALL)
    assert body is not None
    code = [line for line in body[0].splitlines() if line.strip() and '"""' not in line]
    assert len(code) <= 17


def test_own_deq_learns_and_is_certified():
    module = _load("own_deq")
    torch.manual_seed(0)
    model = module.OwnDEQ()
    module.train(model, sigma=0.25, epochs=4)
    data = dc.load_data("digits", split="test")
    images, labels = data.batch(range(len(data)))
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).float().mean()
    assert float(accuracy) > 0.9
    certifier = dc.Certifier(model, sigma=0.25, n=500)
    certificates = [certifier.certify(data[k].image, seed=0, index=k) for k in range(3)]
    right = [c.prediction == data[k].label for k, c in enumerate(certificates)]
    assert sum(right) >= 2
    assert all(0.0 <= c.radius < 0.25 * 3.7 for c in certificates)
    assert max(c.radius for c in certificates) > 0.2
