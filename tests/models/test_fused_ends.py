"""The fast stem and head are the plain ones up to rounding, and a row's bits are its own."""

from __future__ import annotations

import pytest
import torch

from deqcert.models import BATCH_SIZES, build, inference_copy, load_model, solve_rows
from deqcert.models.fast_part import plain_parts
from deqcert.models.mdeq_ends import LinearHead, Stem
from tests.models.made import tiny_mdeq, use_batch_statistics

pytest.importorskip("numba")
from deqcert.models.fused_ends import FusedHead, FusedStem

HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64
TOLERANCE = {SINGLE: 3e-6, HALF: 0.02}
NAMES = ["odd", "even", "grey", "one value", "own shortcut", "mdeq-small"]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def _model(name):
    torch.manual_seed(3)
    if name == "mdeq-small":
        model = build(name)
    else:
        changes = {
            "odd": {},
            "even": {"input_shape": (2, 8, 12)},  # pairs of pixels
            "grey": {"input_shape": (1, 8, 8), "mean": (0.4,), "std": (0.3,)},
            "one value": {"input_shape": (3, 8, 6), "mean": (0.4,), "std": (0.3,)},
            "own shortcut": {"head_channels": (1, 2, 3), "stem_strides": (2, 1)},
        }[name]
        model = tiny_mdeq(3, **changes)
    use_batch_statistics(model, torch.rand(16, *model.input_shape))
    return model


def _given(model, rows, dtype):
    """Noisy images, and a state of ordinary numbers."""
    generator = torch.Generator().manual_seed(5)
    shapes = (model.input_shape, *model.config.state_shapes)
    x, *state = (torch.randn(rows, *shape, generator=generator).to(dtype) for shape in shapes)
    return 0.5 + 0.5 * x, tuple(state)


def _ends(model, x, state):
    with torch.no_grad():
        return model.stem(x), model.head(state)


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
@pytest.mark.parametrize("name", NAMES)
def test_they_are_the_plain_ones_up_to_rounding(name, dtype):
    model = _model(name)
    fast = inference_copy(model, dtype=dtype)
    assert isinstance(fast.stem, FusedStem)
    assert isinstance(fast.head, FusedHead)
    assert name != "own shortcut" or isinstance(
        fast.head.plain.bottlenecks[0].shortcut, torch.nn.Identity
    )
    x, state = _given(model, 20, dtype)
    exact = inference_copy(model, dtype=DOUBLE)
    expected = _ends(exact, x.double(), tuple(part.double() for part in state))
    for got, wanted, kind in zip(_ends(fast, x, state), expected, (dtype, SINGLE), strict=True):
        assert got.dtype == kind
        assert got.shape == wanted.shape
        assert float((got.double() - wanted).norm() / wanted.norm()) < TOLERANCE[dtype]
    assert _ends(fast, x, state)[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
@pytest.mark.parametrize("name", ["odd", "even", "mdeq-small", "mdeq-digits"])
def test_bits_depend_on_neither_batch_nor_threads(threads, name, dtype):
    model = build(name).eval() if name == "mdeq-digits" else _model(name)
    fast = inference_copy(model, dtype=dtype)
    x, state = _given(model, 400, dtype)
    threads(1)
    whole = _ends(fast, x, state)
    sizes = BATCH_SIZES[::3] if name == "mdeq-small" else BATCH_SIZES
    for index, size in enumerate(sizes):
        threads(1 + index % 2)
        rows = slice(400 - size, 400)
        stem, head = _ends(fast, x[rows], tuple(part[rows] for part in state))
        assert torch.equal(stem, whole[0][rows]), size
        assert torch.equal(head, whole[1][rows]), size


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
def test_memory_order_of_the_arguments_does_not_matter(dtype):
    model = _model("one value")
    fast = inference_copy(model, dtype=dtype)
    x, state = _given(model, 16, dtype)
    usual = _ends(fast, x, state)
    for change in (
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.stack([x, x], dim=1)[:, 1],
    ):
        other = _ends(fast, change(x), tuple(map(change, state)))
        assert all(torch.equal(a, b) for a, b in zip(usual, other, strict=True))


@pytest.mark.parametrize("dtype", [SINGLE, HALF])
def test_a_broken_row_stays_alone(dtype):
    model = _model("even")
    fast = inference_copy(model, dtype=dtype)
    x, state = _given(model, 32, dtype)
    clean = _ends(fast, x, state)
    x[5, 0, 3, 3] = state[1][5, 0, 0, 0] = torch.nan
    x[9, 1, 2, 2] = state[0][9, 1, 2, 2] = torch.inf
    dirty = _ends(fast, x, state)
    others = [row for row in range(32) if row not in (5, 9)]
    for a, b in zip(clean, dirty, strict=True):
        assert torch.equal(a[others], b[others])
        assert not bool(b[[5, 9]].isfinite().flatten(1).all(1).any())


def test_what_they_do_not_serve_is_computed_plainly(monkeypatch):
    model = _model("odd")
    fast = inference_copy(model)
    x, state = _given(model, 4, SINGLE)
    wanted = x.clone().requires_grad_()
    fast.stem(wanted).sum().backward()
    assert wanted.grad is not None
    with plain_parts(fast):
        plain = _ends(fast, x, state)
    assert torch.equal(plain[1], fast.head.plain(state))
    monkeypatch.setattr(
        fast.head.plain, "forward", None
    )  # bits may agree, so none may be asked for
    assert torch.allclose(plain[1], fast.head(state), atol=1e-5)
    monkeypatch.undo()
    assert fast.head(tuple(part[:0] for part in state)).shape == (0, 3)
    double = inference_copy(model, dtype=DOUBLE)
    assert type(double.stem) is Stem


def test_other_heads_and_stems_are_left_alone():
    class Own(Stem):
        pass

    model = tiny_mdeq(2).eval()
    assert type(inference_copy(model).head) is LinearHead
    model.stem.__class__ = Own
    assert type(inference_copy(model).stem) is Own
    assert type(model.head) is LinearHead


@pytest.mark.parametrize("name", ["mdeq-small-s050", "mdeq-digits-s050"])
def test_labels_are_the_plain_ones_where_the_lead_is_clear(name):
    fast = inference_copy(load_model(name))
    generator = torch.Generator().manual_seed(0)
    x = 0.5 + 0.5 * torch.randn(200, *fast.input_shape, generator=generator)
    found = solve_rows(fast, x, "picard:3")[0]
    with plain_parts(fast):
        plain = solve_rows(fast, x, "picard:3")[0]
    assert not torch.equal(found, plain)
    assert float((found - plain).abs().max()) < 1e-4
    top = plain.topk(2).values
    clear = top[:, 0] - top[:, 1] > 2e-4
    assert float(clear.double().mean()) > 0.98
    assert torch.equal(found.argmax(1)[clear], plain.argmax(1)[clear])
