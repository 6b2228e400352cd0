"""Every kernel that a model launches on a GPU, by itself, against its formula in float64."""

from __future__ import annotations

import pytest
import torch

from deqcert.models import MDEQ, inference_copy, load_model, solve_rows
from deqcert.models.fast_part import FastPart
from deqcert.models.graphs import unrecorded
from tests.models.checked_kernels import look_at
from tests.models.made import with_random_weights

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    # A part that is dropped would leave nothing to look at.
    pytest.mark.filterwarnings("error::deqcert.errors.PerformanceWarning"),
]


def model_of(name: str):
    return with_random_weights(name) if name == "mdeq-large" else load_model(name)


cases = pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype)
        for name in ("mdeq-digits-s050", "mdeq-small-s050", "mdeq-large")
        for dtype in (torch.float32, torch.bfloat16)
    ],
)


@cases
def test_each_kernel_of_a_model(name, dtype, monkeypatch):
    rows = 21  # whole tiles and a part of one
    found = look_at(model_of(name), dtype, torch.device("cuda"), rows, monkeypatch)
    assert len(found.farthest) > 20
    assert found.wrong(dtype) == {}


@cases
def test_the_same_bits_every_time(name, dtype):
    """Whatever runs beside: a race between threads of a kernel would show sooner or later."""
    model = inference_copy(model_of(name), dtype=dtype, device="cuda")
    assert isinstance(model, MDEQ)
    assert isinstance(model.f, FastPart)
    x = torch.rand(400, *model.input_shape, device="cuda").to(dtype)
    with unrecorded(model):
        first, _ = solve_rows(model, x, "picard:2")
        for _ in range(50):
            assert torch.equal(solve_rows(model, x, "picard:2")[0], first)
