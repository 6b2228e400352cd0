"""Kernels of a GPU that compare every result with the same formula in float64.

They find which layer of a model goes wrong where the model as a whole does: on a GPU
(`test_kernels_on_gpu.py`), and by Triton's interpreter (`interpreted_triton.py`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from deqcert.models import MDEQ, gpu_ends, inference_copy
from deqcert.models.cell_kernels import Norm
from deqcert.models.fused_cell import FusedCell
from deqcert.models.gpu_conv import GpuConv
from deqcert.models.gpu_kernels import GpuKernels

FARTHEST = {torch.float32: 1e-4, torch.bfloat16: 2.0**-6}
"""Distances, in sizes of the result, that rounding does not reach: products of float32 keep 22
bits, of which sums of thousands lose some; bfloat16 keeps eight, and Triton's interpreter cuts off
the rest."""


@dataclass
class Findings:
    """What was computed, by kernel and shape, and how far from the formula at most."""

    farthest: dict[str, float] = field(default_factory=dict)

    def note(self, what: str, found: Tensor, exact: Tensor) -> None:
        """Compare a result number by number, in root mean squares of the whole or its own size."""
        found, size = found.double(), exact.square().mean().sqrt()
        apart = float(((found - exact).abs() / (exact.abs() + size).clamp_min(1e-30)).max())
        apart = torch.inf if apart != apart else apart
        self.farthest[what] = max(apart, self.farthest.get(what, 0.0))

    def wrong(self, dtype: torch.dtype) -> dict[str, float]:
        """Return what is farther than rounding takes it."""
        return {what: apart for what, apart in self.farthest.items() if apart > FARTHEST[dtype]}


class CheckedConv(GpuConv):
    """A convolution that is looked at."""

    def __init__(
        self, conv: nn.Module, dtype: torch.dtype, device: torch.device, findings: Findings
    ) -> None:
        super().__init__(conv, dtype, device)
        assert isinstance(conv, nn.Conv2d)
        self._findings = findings
        self._exact = copy.deepcopy(conv).to(device, torch.float64)
        self._exact.weight.data = conv.weight.detach().to(device, dtype).double()

    def __call__(self, x: Tensor, **after: Any) -> Tensor:
        out = super().__call__(x, **after)
        exact = self._exact(x.double())
        if after.get("shortcut") is not None:
            exact += after["shortcut"].double()
        if after.get("relu"):
            exact = exact.relu()
        if after.get("other") is not None:
            exact += after["other"].double()
        what = f"conv {tuple(x.shape)} -> {tuple(out.shape)} {sorted(after)} {self._tile}"
        self._findings.note(what, out, exact)
        return out


class CheckedKernels(GpuKernels):
    """All kernels of a cell, looked at."""

    def __init__(self, device: torch.device, findings: Findings) -> None:
        super().__init__(device)
        self.findings = findings

    def conv(self, conv: nn.Module, dtype: torch.dtype) -> GpuConv:
        return CheckedConv(conv, dtype, self.device, self.findings)

    def norm(self, x: Tensor, out: Tensor, norm: Norm) -> None:
        super().norm(x, out, norm)
        self.findings.note(f"norm {tuple(x.shape)}", out, exact_norm(x, norm))

    def norm_relu(self, x: Tensor, norm: Norm) -> None:
        exact = exact_norm(x, norm).relu()
        super().norm_relu(x, norm)
        self.findings.note(f"norm_relu {tuple(x.shape)}", x, exact)

    def end_block(
        self, x: Tensor, injection: Tensor | None, z: Tensor, first: Norm, second: Norm
    ) -> None:
        added = x.double() if injection is None else x.double() + injection.double()
        exact = exact_norm((exact_norm(added, first) + z.double()).relu(), second)
        super().end_block(x, injection, z, first, second)
        what = f"end_block {tuple(x.shape)}{'' if injection is None else ' with injection'}"
        self.findings.note(what, x, exact)

    def fuse(self, base: Tensor, paths: Any, norms: Norm, out: Tensor) -> None:
        exact = base.double()
        for path, affine in zip(paths, norms.affine, strict=True):
            normed = exact_norm(path, Norm(affine, norms.groups, norms.eps))
            exact = exact + F.interpolate(normed, size=base.shape[2:], mode="nearest")
        super().fuse(base, paths, norms, out)
        self.findings.note(f"fuse {tuple(base.shape)} of {len(paths)}", out, exact.relu())


def exact_norm(x: Tensor, norm: Norm) -> Tensor:
    """Return GroupNorm(x) in float64."""
    weight, bias = norm.affine.double()
    return F.group_norm(x.double(), norm.groups, weight, bias, norm.eps)


@torch.no_grad()
def look_at(
    model: MDEQ,
    dtype: torch.dtype,
    device: torch.device,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> Findings:
    """Return how two steps of some rows, and their logits, are computed on a GPU.

    Args:
        model: With stem, cell and bottleneck head.
        dtype: float32 or bfloat16.
        device: The GPU; the CPU for Triton's interpreter.
        rows: Images at once.
        monkeypatch: Puts looked-at convolutions in stem and head.
    """
    findings = Findings()
    folded = inference_copy(model, dtype=torch.float32, device="cpu")
    plain = [getattr(part, "plain", part) for part in (folded.stem, folded.f, folded.head)]
    stem, f, head = (part.to(device) for part in plain)
    with monkeypatch.context() as patch:
        patch.setattr(gpu_ends, "GpuConv", partial(CheckedConv, findings=findings))
        stem, head = (gpu_ends.gpu_end(part, dtype, device) for part in (stem, head))
    cell = FusedCell(f, dtype, CheckedKernels(device, findings))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(rows, *model.input_shape, generator=generator).to(device, dtype)
    top = stem(x)
    zeros = (torch.zeros(1, *shape).to(top) for shape in model.config.state_shapes)
    state = cell(tuple(zeros), top, None)
    head(cell(state, top, None))
    return findings
