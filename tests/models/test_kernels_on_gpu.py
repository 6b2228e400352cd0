"""Every kernel that a model launches on a GPU, by itself, against its formula in float64."""

from __future__ import annotations

import pytest
import torch

from deqcert.models import build, load_model
from tests.models.checked_kernels import look_at

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def model_of(name: str):
    if name != "mdeq-large":
        return load_model(name)
    torch.manual_seed(0)
    model = build(name).eval()
    for part in model.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["mdeq-digits-s050", "mdeq-small-s050", "mdeq-large"])
def test_each_kernel_of_a_model(name, dtype, monkeypatch):
    rows = 21  # whole tiles and a part of one
    found = look_at(model_of(name), dtype, torch.device("cuda"), rows, monkeypatch)
    assert len(found.farthest) > 20
    assert found.wrong(dtype) == {}
