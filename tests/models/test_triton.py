"""The Triton kernels without a GPU: by Triton's interpreter, and compiled for other machines.

What runs in the interpreter is `interpreted_triton.py`, in a process of its own: Triton reads
TRITON_INTERPRET when it is imported.
"""

from __future__ import annotations

import os

import pytest
import torch

from deqcert.models import build
from tests.models.launched import Launch, launches_of
from tests.triton_here import dropped, passed_in_the_interpreter, spilled

triton = pytest.importorskip("triton", reason="Triton is not installed")

MODELS = ("mdeq-digits", "mdeq-small", "mdeq-large")
EVERY = bool(os.environ.get("DEQCERT_EVERY_KERNEL"))
"""Whether to compile all shapes for all GPUs: minutes."""


@pytest.mark.timeout(1800)  # the interpreter takes minutes where other processes are busy
def test_by_the_interpreter():
    assert passed_in_the_interpreter("tests/models/interpreted_triton.py") > 70


def chosen(model: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    """Launch and compute capability: each kernel at the highest or at the lowest resolution."""
    launches = launches_of(build(model).eval(), dtype, monkeypatch)
    kernels = {launch.kernel for launch in launches}
    assert kernels == {"norm", "end_block", "fuse", "conv"}
    if EVERY:
        return [(launch, capability) for launch in launches for capability in (80, 90)]
    of = {name: [launch for launch in launches if launch.kernel == name] for name in kernels}
    place, capability = (0, 90) if dtype == torch.bfloat16 else (-1, 80)
    return [(some[place], capability) for some in of.values()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model", MODELS)
def test_compiled_for_gpus_that_are_not_here(model, dtype, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with monkeypatch.context() as noting:
        pairs = chosen(model, dtype, noting)
    for launch, capability in pairs:
        compiled = _compiled(launch, capability)
        assert f".target sm_{capability}" in compiled.asm["ptx"], launch
        assert len(compiled.asm["cubin"]) > 1000, launch
        # Registers suffice; but for some convolutions, in float32 before compute capability 9.0.
        missing = spilled(compiled.asm["cubin"], tmp_path)
        assert missing <= (256 if launch.kernel == "conv" and capability < 90 else 0), launch
        assert dropped(compiled.asm["cubin"], tmp_path) == [], launch
        assert "fma.rn.f32" not in compiled.asm["ptx"], launch
        if dtype == torch.bfloat16:
            assert "cvt.rn.bf16" in compiled.asm["ptx"], launch
            assert "cvt.rz" not in compiled.asm["ptx"], launch
        assert compiled.metadata.shared < (100 if launch.kernel == "conv" else 48) << 10, launch


def test_no_place_of_an_image_is_lost_by_the_assembler(monkeypatch, tmp_path):
    """The one layer of these models whose machine code was wrong: 32 -> 64 channels, every other
    pixel of 32 x 32, in bfloat16."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with monkeypatch.context() as noting:
        launches = launches_of(build("mdeq-large").eval(), torch.bfloat16, noting)
    wanted = {"H": 32, "CI": 32, "CO": 64, "STRIDE": 2}
    (layer,) = [one for one in launches if wanted.items() <= dict(one.constants).items()]
    assert layer.types[-2:] == ("i32", "i32"), "the padding is no constant"
    assert dropped(_compiled(layer, 90).asm["cubin"], tmp_path) == []


def _compiled(launch: Launch, capability: int):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from deqcert.models import triton_conv, triton_kernels

    kernels = triton_kernels.KERNELS | triton_conv.KERNELS
    kernel, constants = kernels[launch.kernel], dict(launch.constants)
    types = iter(launch.types)
    signature = {n: "constexpr" if n in constants else next(types) for n in kernel.arg_names}
    pointers = [i for i, n in enumerate(kernel.arg_names) if signature[n].startswith("*")]
    source = ASTSource(
        kernel,
        signature,
        constexprs=constants,
        attrs={(i,): [["tt.divisibility", 16]] for i in pointers},
    )
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=dict(launch.options))
