"""Which Triton kernels the cells of models launch, noted instead of launched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deqcert.models import MDEQ, gpu_ends, gpu_kernels, inference_copy, triton_conv
from deqcert.models.fused_cell import FusedCell

OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int32: "i32"}


@dataclass(frozen=True)
class Launch:
    """One kernel as it is compiled: its name, types of its arguments, constants and options."""

    kernel: str
    types: tuple[str, ...]
    constants: tuple[tuple[str, int], ...]
    options: tuple[tuple[str, int], ...]


@dataclass
class Noted:
    """Stands for a kernel and notes how it is launched."""

    name: str
    launches: list[Launch] = field(default_factory=list)

    def __getitem__(self, grid: tuple[int, int]) -> Any:
        def launch(*arguments: Any, **named: int) -> None:
            types = tuple(map(_type, arguments))
            options = {key: named.pop(key) for key in OPTIONS if key in named}
            entry = Launch(self.name, types, tuple(named.items()), tuple(options.items()))
            self.launches.append(entry)

        return launch


def launches_of(model: MDEQ, dtype: torch.dtype, monkeypatch: Any) -> list[Launch]:
    """Return what one row's first step, one step from elsewhere and logits launch, each once."""
    noted = {name: Noted(name) for name in gpu_kernels.triton_kernels.KERNELS}
    monkeypatch.setattr(gpu_kernels.triton_kernels, "KERNELS", noted)
    noted["conv"] = Noted("conv")
    monkeypatch.setattr(triton_conv, "KERNELS", noted)
    copied, cpu = inference_copy(model, dtype=torch.float32), torch.device("cpu")
    cell = FusedCell(copied.f.plain, dtype, gpu_kernels.GpuKernels(cpu))
    ends = [getattr(part, "plain", part) for part in (copied.stem, copied.head)]
    stem, head = (gpu_ends.gpu_end(part, dtype, cpu) for part in ends)
    state = tuple(torch.zeros(2, *shape, dtype=dtype) for shape in model.config.state_shapes)
    with torch.no_grad():
        cell(state, state[0], None)
        cell(tuple(part[:1] for part in state), state[0], None)
        stem(torch.rand(2, *model.input_shape).to(dtype))
        if isinstance(head, gpu_ends.GpuHead):
            head(state)
    return list(dict.fromkeys(entry for kernel in noted.values() for entry in kernel.launches))


def _type(argument: Any) -> str:
    if isinstance(argument, Tensor):
        return "*" + TYPES[argument.dtype]
    return "i32" if isinstance(argument, int) else "fp32"
