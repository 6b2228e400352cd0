"""The fast cell is the plain one up to rounding, and a row's bits are its own."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch

from deqcert.data import load_data
from deqcert.models import (
    BATCH_SIZES,
    MDEQ,
    MDEQConfig,
    build,
    inference_copy,
    load_model,
    solve_rows,
)
from deqcert.models import fused_cell as fused_cell_module
from deqcert.models.fast_part import plain_parts
from deqcert.models.mdeq_cell import MDEQCell
from tests.models.made import tiny_mdeq, use_batch_statistics

pytest.importorskip("numba")

HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64
TOLERANCE = {SINGLE: 3e-6, HALF: 0.02}


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def _lively(model, shape):
    """Give normalisations scales and shifts that matter."""
    use_batch_statistics(model, torch.rand(16, *shape))
    generator = torch.Generator().manual_seed(2)
    for part in model.f.modules():
        if isinstance(part, torch.nn.GroupNorm) and part.affine:
            torch.nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
            torch.nn.init.uniform_(part.bias, -0.5, 0.5, generator=generator)
    return model


def _model(name):
    torch.manual_seed(3)
    if name in ("1", "2", "3"):
        return _lively(tiny_mdeq(int(name)), (2, 9, 7))
    if name == "even":  # pairs of pixels, one channel per group, sums of three resolutions
        return _lively(tiny_mdeq(3, input_shape=(2, 8, 12), groups=4), (2, 8, 12))
    if name == "one pixel":
        return _lively(tiny_mdeq(2, input_shape=(2, 2, 2), groups=2), (2, 2, 2))
    return _lively(build(name), (3, 32, 32))


def _start(model, rows, dtype):
    """A state of ordinary numbers, and the injection."""
    generator = torch.Generator().manual_seed(5)
    shapes = model.config.state_shapes
    parts = [torch.randn(rows, *shape, generator=generator) for shape in (*shapes, shapes[0])]
    *state, top = (part.to(dtype) for part in parts)
    return tuple(state), (top.relu(), None)


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
@pytest.mark.parametrize("name", ["1", "2", "3", "even", "one pixel", "mdeq-small"])
def test_it_is_the_plain_cell_up_to_rounding(name, dtype):
    model = _model(name)
    fast = inference_copy(model, dtype=dtype)
    assert isinstance(fast.f, fused_cell_module.FusedCell)
    state, injection = _start(model, 20, dtype)
    with torch.no_grad():
        got = fast.cell(state, injection)
        exact = inference_copy(model, dtype=DOUBLE)
        top = injection[0].double()
        expected = exact.cell(tuple(part.double() for part in state), (top, None))
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == dtype
        assert a.shape == b.shape
        assert float((a.double() - b).norm() / b.norm()) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
@pytest.mark.parametrize("name", ["3", "even", "mdeq-small"])
def test_bits_depend_on_neither_batch_nor_threads(threads, name, dtype):
    model = _model(name)
    fast = inference_copy(model, dtype=dtype)
    state, (top, _) = _start(model, 400, dtype)
    threads(1)
    whole = fast.cell(state, (top, None))
    sizes = BATCH_SIZES[::3] if name == "mdeq-small" else BATCH_SIZES
    for index, size in enumerate(sizes):
        threads(1 + index % 2)
        rows = slice(400 - size, 400)
        parts = fast.cell(tuple(part[rows] for part in state), (top[rows], None))
        assert all(torch.equal(a, b[rows]) for a, b in zip(parts, whole, strict=True)), size


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
def test_memory_order_of_the_arguments_does_not_matter(dtype):
    model = _model("3")
    fast = inference_copy(model, dtype=dtype)
    state, (top, _) = _start(model, 16, dtype)
    before = copy.deepcopy((*state, top))
    results = []
    for change in (
        lambda x: x.contiguous(),
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.stack([x, x], dim=1)[:, 1],
    ):
        results.append(fast.cell(tuple(change(part) for part in state), (change(top), None)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip((*state, top), before, strict=True))


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
def test_a_broken_row_stays_alone(dtype):
    model = _model("even")
    fast = inference_copy(model, dtype=dtype)
    state, injection = _start(model, 32, dtype)
    clean = fast.cell(state, injection)
    state[1][5, 0, 0, 0] = torch.nan
    injection[0][9, 1, 2, 2] = torch.inf
    dirty = fast.cell(state, injection)
    others = [row for row in range(32) if row not in (5, 9)]
    for a, b in zip(clean, dirty, strict=True):
        assert torch.equal(a[others], b[others])
        assert bool(b[[5, 9]].isnan().any())


def test_what_it_does_not_serve_is_computed_plainly():
    model = _model("2")
    fast = inference_copy(model)
    plain = fast.f.plain
    assert type(plain) is MDEQCell
    state, (top, _) = _start(model, 4, SINGLE)
    masks = tuple(torch.full((4, z.shape[1], 1, 1), 0.5) for z in state)
    _same(fast.f(state, top, masks), plain(state, top, masks))
    wanted = tuple(part.clone().requires_grad_() for part in state)
    sum(part.sum() for part in fast.f(wanted, top, None)).backward()
    assert all(part.grad is not None for part in wanted)
    double = fast.to(torch.float64)
    state, (top, _) = _start(model, 4, DOUBLE)
    _same(double.f(state, top, None), double.f.plain(state, top, None))
    assert all(part.shape[0] == 0 for part in double.f(tuple(z[:0] for z in state), top[:0], None))


def _same(got, expected):
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_it_can_be_switched_off_for_a_while():
    fast = inference_copy(_model("3"))
    state, injection = _start(fast, 16, SINGLE)
    usual = fast.cell(state, injection)
    with plain_parts(fast) as any_fast:
        assert any_fast
        plain = fast.cell(state, injection)
    _same(plain, fast.f.plain(state, *injection))
    assert not all(torch.equal(a, b) for a, b in zip(plain, usual, strict=True))
    _same(fast.cell(state, injection), usual)
    with plain_parts(torch.nn.Linear(1, 1)) as any_fast:
        assert not any_fast


def test_it_stays_off_when_an_inner_while_is_over():
    model = inference_copy(_model("3"))
    with plain_parts(model):
        with plain_parts(model):
            pass
        assert not model.f.active
    assert model.f.active


def test_other_cells_and_precisions_are_left_alone():
    class Own(MDEQCell):
        pass

    model = _model("2")
    assert type(inference_copy(model, dtype=DOUBLE).f) is MDEQCell
    model.f.__class__ = Own
    assert type(inference_copy(model).f) is Own


def test_the_trained_model_is_left_alone():
    model = _model("3")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = inference_copy(model, dtype=HALF)
    assert type(model.f) is MDEQCell
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = copy.deepcopy(fast)
    state, injection = _start(model, 16, HALF)
    _same(again.cell(state, injection), fast.cell(state, injection))


@pytest.mark.parametrize(("name", "data"), [("mdeq-digits-s050", "digits")])
def test_labels_of_a_shipped_model(monkeypatch, name, data):
    model = load_model(name)
    generator = torch.Generator().manual_seed(0)
    images = torch.stack([example.image for example in load_data(data, split="test")])[:100]
    x = (images + 0.5 * torch.randn(8, *images.shape, generator=generator)).flatten(0, 1)
    fast = solve_rows(inference_copy(model), x, "anderson:15")[0]
    half = solve_rows(inference_copy(model, dtype=HALF), x.to(HALF), "anderson:15")[0]
    monkeypatch.setattr("deqcert.models.inference.fused_cell", lambda cell, dtype, device: cell)
    copied = inference_copy(model)
    assert type(copied.f) is MDEQCell
    plain = solve_rows(copied, x, "anderson:15")[0]
    top = plain.topk(2).values
    lead = top[:, 0] - top[:, 1]
    moved = (fast - plain).abs().amax(dim=1)
    assert float(moved.max()) < 2e-3
    assert torch.equal(fast.argmax(1)[lead > 4e-3], plain.argmax(1)[lead > 4e-3])
    assert float((half.argmax(1) == plain.argmax(1)).double().mean()) > 0.98


def test_without_numba_the_cell_is_the_plain_one():
    # Another process: what numba has loaded cannot be unloaded.
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch\n"
        "from deqcert.models import build, inference_copy\n"
        "model = inference_copy(build('mdeq-digits'))\n"
        "print(type(model.f).__name__, tuple(model(torch.rand(2, 1, 8, 8)).shape))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "MDEQCell (2, 10)"


def test_importing_the_package_loads_no_compiler():
    code = "import sys, deqcert.models; print('numba' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "False"


def test_nothing_is_said_where_machine_code_cannot_be_kept(tmp_path):
    # A read-only package and no home to write to.
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "import torch\n"
        "from deqcert.models.cell_kernels import norm_of\n"
        "from deqcert.models.cpu_kernels import CpuKernels\n"
        "from deqcert.solvers.row_kernels import dots\n"
        "kernels, norm = CpuKernels(), torch.nn.GroupNorm(1, 2)\n"
        "x = torch.tensor([[1.0, 3.0]]).view(1, 2, 1, 1).contiguous(\n"
        "    memory_format=torch.channels_last)\n"
        "kernels.norm_relu(x, norm_of(kernels, norm))\n"
        "print(x.flatten().round().tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[0.0, 1.0]"
    assert not done.stderr


def test_a_large_image_is_cut_into_small_chunks():
    config = MDEQConfig(
        input_shape=(1, 64, 64), num_classes=2, channels=(16, 8), expansion=5, head="pool"
    )
    fast = inference_copy(MDEQ(config))
    state, (top, _) = _start(MDEQ(config), 16, SINGLE)
    assert fast.f._chunk_rows([*state, top]) == 32
    assert fast.f._chunk_rows([part[:, :, :32, :16] for part in (*state, top)]) == 64
    assert fast.f._chunk_rows([part[:, :, :8, :8] for part in (*state, top)]) == 400


def test_a_wide_block_takes_its_rows_in_parts(monkeypatch):
    fast = inference_copy(_model("mdeq-small"))
    state, (top, _) = _start(fast, 48, SINGLE)
    whole = fast.cell(state, (top, None))
    monkeypatch.setattr(fused_cell_module, "_CHUNK_BYTES", 1 << 20)
    assert fast.f._chunk_rows([*state, top]) == 32
    assert fused_cell_module._rows_at_once(state[0], 5) == 16
    _same(fast.cell(state, (top, None)), whole)
