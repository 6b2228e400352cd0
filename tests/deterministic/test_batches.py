"""A deterministic record depends on its image alone, to the bit: not on batch size or place."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from deqcert.deterministic import DeterministicCertificate, IntervalCertifier, LipschitzCertifier
from deqcert.errors import ConfigurationError, UnknownNameError
from deqcert.models import MonDEQ, MonDEQConfig
from tests.checks.runs import monotone_model

DENSE, CONV = (1, 28, 28), (1, 12, 12)
SHAPES = {
    "dense": {"input_shape": DENSE, "width": 40, "m": 20.0},
    "conv": {"input_shape": CONV, "kind": "conv", "width": 6, "m": 4.0, "pool": 4},
    "absolute": {"input_shape": DENSE, "width": 100, "m": 0.5, "constraint": "absolute"},
    "conv-absolute": {
        "input_shape": CONV, "kind": "conv", "width": 4, "m": 0.5, "pool": 4,
        "constraint": "absolute",
    },
}  # fmt: skip


def certifier(name: str, batch_size: int = 64) -> LipschitzCertifier | IntervalCertifier:
    torch.manual_seed(1)
    model = MonDEQ(MonDEQConfig(num_classes=10, **SHAPES[name])).eval()
    if "absolute" in name:
        return IntervalCertifier(model, resolution=0.1, steps=10, batch_size=batch_size)
    return LipschitzCertifier(model, solver="picard:30:1e-5", batch_size=batch_size)


def timeless(certificates: list[DeterministicCertificate]) -> list[DeterministicCertificate]:
    return [replace(certificate, seconds=0.0) for certificate in certificates]


@pytest.mark.parametrize("name", SHAPES)
def test_neither_batch_nor_place_changes_a_bit(name: str):
    shape = SHAPES[name]["input_shape"]
    x = torch.rand(37, *shape, generator=torch.Generator().manual_seed(2))
    whole = timeless(certifier(name).certify(x))
    assert len({(c.radius, c.distance) for c in whole}) > 20
    for size in (1, 7, 16, 33):
        part = x[:4] if size == 1 else x
        assert timeless(certifier(name, size).certify(part)) == whole[: len(part)]
    order = list(reversed(range(37)))
    turned = certifier(name, 20).certify(x[order], indices=order)
    assert timeless(turned)[::-1] == whole


def test_the_configuration_names_claim_and_settings():
    lipschitz = LipschitzCertifier(monotone_model(), solver="picard:50:1e-6").configuration
    claim = {"guarantee": "deterministic", "reference": "equilibrium"}
    assert lipschitz.items() >= {
        **claim, "method": "lipschitz", "norm": "L2", "domain": "all", "solver": "picard:50:1e-06"
    }.items()  # fmt: skip
    model = monotone_model("absolute")
    interval = IntervalCertifier(model, within_pixels=False, steps=9).configuration
    assert interval.items() >= {
        **claim, "method": "interval", "norm": "Linf", "domain": "all", "steps": 9,
        "largest": 0.5, "resolution": 1e-4,
    }.items()  # fmt: skip
    assert IntervalCertifier(model).configuration["domain"] == "pixels"
    assert interval["weights_digest"] != lipschitz["weights_digest"]


def test_cost_and_width_of_the_bisection_follow_from_the_settings():
    certifier = IntervalCertifier(monotone_model("absolute"), largest=0.1, resolution=0.03, steps=5)
    assert certifier.settings.halvings == 2
    found = certifier.certify(torch.full((1, 1, 8, 8), 0.5))[0]
    assert found.cell_evaluations == 2 * 5 * (1 + 1 + 2)
    assert found.radius in (0.0, 0.025, 0.05, 0.075)


@pytest.mark.parametrize("size", [0, 401, 2.0, True])
def test_batch_sizes_out_of_range_are_refused(size):
    with pytest.raises(ConfigurationError, match="batch_size"):
        LipschitzCertifier(monotone_model(), batch_size=size)


def test_settings_out_of_range_are_refused():
    model = monotone_model("absolute")
    with pytest.raises(UnknownNameError, match="picard"):
        LipschitzCertifier(model, solver="piccard:3")
    for change in ({"largest": float("inf")}, {"resolution": 0.0}, {"largest": float("nan")}):
        with pytest.raises(ConfigurationError, match="resolution"):
            IntervalCertifier(model, **change)
    for steps in (0, 2.0):
        with pytest.raises(ConfigurationError, match="steps"):
            IntervalCertifier(model, steps=steps)
