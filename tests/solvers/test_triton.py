"""The Triton kernels without a GPU: by Triton's interpreter, and compiled for other machines.

What runs in the interpreter is `interpreted_triton.py`, in a process of its own: Triton reads
TRITON_INTERPRET when it is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from deqcert.solvers import compiled, solve
from tests.triton_here import passed_in_the_interpreter, spilled

triton = pytest.importorskip("triton", reason="Triton is not installed")

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float64: "*fp64"}
PASSES = ("dots", "combine", "changes", "eliminate")


@pytest.mark.timeout(1800)  # the interpreter takes minutes where other processes are busy
def test_by_the_interpreter():
    assert passed_in_the_interpreter("tests/solvers/interpreted_triton.py") > 65


@dataclass
class Noted:
    """Stands for a kernel and notes what it is launched with, by the names of its arguments."""

    kernel: Any
    launches: list[dict[str, Any]] = field(default_factory=list)

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **named: Any) -> None:
            named.update(zip(self.kernel.arg_names, arguments, strict=False))
            self.launches.append(named)

        return launch


def noted_solve(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> dict[str, Noted]:
    """Return what a solve of 14,336 numbers a row launches: on the meta device, without numbers."""
    from deqcert.solvers import gpu_rows

    noted = {name: Noted(kernel) for name, kernel in gpu_rows.triton_rows.KERNELS.items()}
    monkeypatch.setattr(gpu_rows.triton_rows, "KERNELS", noted)
    for name in PASSES:
        monkeypatch.setattr(compiled, name, getattr(gpu_rows, name))
    start = torch.zeros(17, 14_336, dtype=dtype, device="meta")
    solve(lambda z, _: z + 1, start, spec="anderson:9")
    return noted


@pytest.mark.parametrize(("dtype", "capability"), [(torch.bfloat16, 90), (torch.float32, 80)])
def test_compiled_for_gpus_that_are_not_here(dtype, capability, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with monkeypatch.context() as noting:
        noted = noted_solve(dtype, noting)
    assert set(noted) == set(PASSES)
    for name, of in noted.items():
        made = _compiled(of.kernel, of.launches[-1], capability)
        code = made.asm["ptx"]
        assert f".target sm_{capability}" in code, name
        assert spilled(made.asm["cubin"], tmp_path) == 0, name  # registers suffice
        assert "fma.rn" not in code, name
        assert "cvt.rz" not in code, name
        assert made.metadata.shared < 1024, name
        if name == "combine":
            assert ("cvt.rn.bf16" in code) == (dtype == torch.bfloat16)
        if name == "eliminate":
            assert "0d3F1A36E2EB1C432D" in code  # a ridge of 1e-4 with all its digits
            assert made.metadata.shared == 0  # no system leaves its thread
        else:
            assert "ld.global.v4.b32" in code, name  # 16 bytes at once


def test_numbers_that_vary_do_not_choose_machine_code(monkeypatch):
    noted = noted_solve(torch.bfloat16, monkeypatch)
    specialised = {
        (name, param.name)
        for name, of in noted.items()
        for param in of.kernel.params
        if isinstance(of.launches[-1][param.name], int)
        if not (param.is_constexpr or param.do_not_specialize)
    }
    assert specialised == {("combine", "width")}  # nothing is summed across it
    # One machine code for products, however many slots there are.
    sizes = ("W", "GROUP", "BLOCK", "num_warps")
    assert len({tuple(launch[key] for key in sizes) for launch in noted["dots"].launches}) == 1


def _compiled(kernel: Any, launch: dict[str, Any], capability: int):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {key: launch[key] for key in ("num_warps", "enable_fp_fusion")}
    constants = {p.name: launch[p.name] for p in kernel.params if p.is_constexpr}
    signature = dict.fromkeys(kernel.arg_names, "constexpr")
    attrs = {}
    for place, param in enumerate(kernel.params):
        value = launch[param.name]
        if not param.is_constexpr:
            signature[param.name] = TYPES[value.dtype] if isinstance(value, Tensor) else "i32"
            if isinstance(value, Tensor) or (not param.do_not_specialize and value % 16 == 0):
                attrs[place,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attrs)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
