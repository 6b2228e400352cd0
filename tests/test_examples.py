"""The examples run, and do what they say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
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


@pytest.mark.filterwarnings("ignore")  # of other packages
def test_art_estimator_predicts_certifies_and_is_attacked():
    pytest.importorskip("art", reason="needs adversarial-robustness-toolbox")
    module = _load("art_estimator")
    model = dc.load_model("mdeq-digits")
    images, labels = dc.load_data("digits", split="test").batch(range(4))
    certifier = dc.Certifier(model, sigma=0.5, n=300)
    smoothed = module.SmoothedDEQ(model, certifier, seed=3, draws=200, sample_size=4)
    classes, radii = smoothed.certify(images.numpy())
    for index, (found, radius) in enumerate(zip(classes, radii, strict=True)):
        expected = certifier.certify(images[index], seed=3, index=index)
        assert (found, radius) == (expected.prediction, expected.radius)
    voted = smoothed.predict(images.numpy())
    assert voted.shape == (4, 10)
    assert set(voted.sum(1)) <= {0.0, 1.0}
    one_hot = np.eye(10, dtype=np.float32)[labels]
    gradient = smoothed.loss_gradient(images.numpy(), one_hot)
    assert gradient.shape == images.shape
    assert abs(gradient).max() > 0
    plain = module.art_classifier(model)
    with torch.no_grad():
        assert abs(plain.predict(images.numpy()) - model(images).numpy()).max() < 1e-4
    attack = module.ProjectedGradientDescent(
        plain, norm=2, eps=0.5, eps_step=0.1, max_iter=5, verbose=False
    )
    moved = attack.generate(images.numpy(), labels.numpy())
    distances = ((moved - images.numpy()) ** 2).sum((1, 2, 3)) ** 0.5
    assert distances.max() <= 0.5 + 1e-5
    losses = [plain.compute_loss(x, one_hot).mean() for x in (images.numpy(), moved)]
    assert losses[1] > losses[0]
    with pytest.raises(ValueError, match="draws 300 noisy copies, but n is 7"):
        smoothed.certify(images.numpy(), n=7)
