"""In a solve of fixed steps the host never asks the device for a number: it only launches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from deqcert.models import build, inference_copy, solve_rows
from deqcert.models.fast_part import plain_parts
from deqcert.solvers import solve
from tests.models.made import tiny_mdeq

SPECS = ["picard:3", "picard:3,mixing=0.5", "anderson:2", "anderson:9", "broyden:4"]
SPECS += ["anderson:9,memory=3", "anderson:9,mixing=0.5"]
META = torch.device("meta")
REFUSED = {
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::lift_fresh",
    "aten::_unique2",
}


class WaitedError(Exception):
    """The host has asked for a number."""


class NoWaiting(TorchDispatchMode):
    """Refuses what would make the host wait for a GPU.

    Numbers read by the host, places of true values, and tensors made by the host: `lift_fresh`
    stands for what `torch.tensor` makes, which on a GPU is copied there from pageable memory.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        masks = name in ("aten::index", "aten::index_put_") and any(
            part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1]
        )
        if name in REFUSED or masks:
            raise WaitedError(func.name())
        out = func(*args, **(kwargs or {}))
        moved = isinstance(out, torch.Tensor) and any(
            isinstance(x, torch.Tensor) and x.device != out.device for x in args
        )
        if moved and out.ndim:
            raise WaitedError(f"{func.name()} to {out.device}")
        return out


@pytest.mark.parametrize(
    "question",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.tensor([1, 2]),
        lambda x: x.to("meta"),
        lambda x: x.index_put_((x > 0,), torch.tensor(0.0)),
    ],
)
def test_what_would_wait_is_seen(question):
    with pytest.raises(WaitedError), NoWaiting():
        question(torch.ones(3))


def contraction(z, x):
    return tuple(0.5 * torch.tanh(part) + other for part, other in zip(z, x, strict=True))


@pytest.mark.parametrize("spec", SPECS)
def test_a_solve_asks_nothing(spec):
    # On the meta device there are no numbers: whoever asks for one fails.
    start = tuple(torch.zeros(6, *shape, device=META) for shape in ((3, 4), (7,)))
    solution = solve(contraction, start, start, spec=spec)
    assert solution.residual.shape == (6,)
    # On the CPU `poisoned` may ask whether there is anything to do; other devices are spared that.
    start = tuple(part.to(META) for part in start)
    with NoWaiting():
        solve(contraction, start, start, spec=spec)


def test_a_tolerance_has_to_ask():
    start = tuple(torch.zeros(6, 5, device=META) for _ in range(2))
    with pytest.raises(WaitedError), NoWaiting():
        solve(contraction, start, start, spec="picard:3:1e-3")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", ["mdeq-digits", "three", "learned start"])
def test_a_model_from_images_to_logits_asks_nothing(name, spec, warm, dtype):
    made = {
        "three": lambda: tiny_mdeq(3),
        "learned start": lambda: tiny_mdeq(2, learned_start=True),
    }
    model = inference_copy(made.get(name, lambda: build(name))().eval(), dtype=dtype).to(META)
    x = torch.rand(20, *model.input_shape, dtype=dtype, device=META)
    state = None
    with NoWaiting(), plain_parts(model):
        if warm:
            state = solve_rows(model, x, "picard:1")[1].state
        logits, _ = solve_rows(model, x, spec, state)
    assert logits.shape == (20, model.num_classes)
