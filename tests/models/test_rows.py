"""Solving rows in fixed batch sizes."""

from __future__ import annotations

import pytest
import torch

from deqcert.errors import ConfigurationError, InputError
from deqcert.models import BATCH_SIZES, GradientSpec, inference_copy, load_model, solve_rows
from deqcert.models.fast_part import plain_parts
from deqcert.models.trees import leaves
from deqcert.solvers import SolverSpec, Status
from tests.models.made import make_contractive, tiny_mdeq, use_batch_statistics


def _model():
    model = tiny_mdeq(2)
    use_batch_statistics(model, torch.rand(64, 2, 9, 7))
    make_contractive(model)
    return inference_copy(model)


def _watch_sizes(model):
    seen = set()
    for part in model.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_pre_hook(lambda _m, args: seen.add(len(args[0])))
    return seen


@pytest.mark.parametrize("count", [1, 7, 17, 400, 401, 930])
def test_the_hardware_sees_the_fixed_sizes_alone(count):
    model = _model()
    seen = _watch_sizes(model)
    logits, solution = solve_rows(model, torch.rand(count, 2, 9, 7), "anderson:9:1e-3")
    assert seen <= set(BATCH_SIZES)
    assert logits.shape == (count, 3)
    assert solution.status.shape == solution.steps.shape == solution.residual.shape == (count,)
    assert solution.cell_evaluations.shape == (count,)
    assert [tuple(z.shape) for z in solution.state] == [(count, 4, 9, 7), (count, 8, 5, 4)]
    assert solution.rows_evaluated >= int(solution.cell_evaluations.sum())


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_long_batches_are_solved_like_their_parts(threads):
    threads(1)  # several share the rows in other sizes
    model, x = _model(), torch.rand(930, 2, 9, 7)
    whole, solution = solve_rows(model, x, "anderson:9:1e-3")
    parts = [solve_rows(model, x[low : low + 400], "anderson:9:1e-3") for low in (0, 400, 800)]
    assert torch.equal(whole, torch.cat([logits for logits, _ in parts]))
    assert torch.equal(solution.steps, torch.cat([s.steps for _, s in parts]))
    assert solution.rows_evaluated == sum(s.rows_evaluated for _, s in parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spec", ["picard:3", "anderson:6", "anderson:12:1e-2", "broyden:4"])
def test_threads_that_share_the_rows_change_no_bit(threads, spec, dtype):
    model = inference_copy(load_model("mdeq-digits"), dtype=dtype)
    x = torch.rand(420, *model.input_shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    for count in (420, 100, 37, 3):
        found = []
        for number in (1, 2, 3):
            threads(number)
            found.append(solve_rows(model, x[:count], spec))
        (logits, alone), *others = found
        assert logits.shape == (count, 10)
        for shared, solution in others:
            assert torch.equal(shared, logits)
            for name in ("status", "steps", "residual", "cell_evaluations"):
                assert torch.equal(getattr(solution, name), getattr(alone, name)), name
            assert all(map(torch.equal, leaves(solution.state), leaves(alone.state)))


def test_threads_take_shares_of_the_rows(threads, monkeypatch):
    model = inference_copy(load_model("mdeq-digits"))
    seen, inject = [], type(model).inject
    monkeypatch.setattr(type(model), "inject", lambda m, x: (seen.append(len(x)), inject(m, x))[1])
    for number, expected in ((1, [400]), (2, [16, 192, 192]), (3, [16, 128, 128, 128])):
        threads(number)
        seen.clear()
        solve_rows(model, torch.rand(400, *model.input_shape), "picard:2")
        assert sorted(seen) == expected
    with plain_parts(model):  # whose kernels share a batch among threads themselves
        seen.clear()
        solve_rows(model, torch.rand(400, *model.input_shape), "picard:2")
        assert seen == [400]


@pytest.mark.parametrize("count", [5, 400, 450])
def test_a_given_start_continues_the_solve(count):
    model, x = _model(), torch.rand(count, 2, 9, 7)
    _, half = solve_rows(model, x, "picard:3")
    logits, solution = solve_rows(model, x, "picard:4", half.state)
    expected, straight = solve_rows(model, x, "picard:7")
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(solution.residual, straight.residual, rtol=1e-2, atol=1e-5)


def test_a_broken_row_stays_alone():
    model, x = _model(), torch.rand(20, 2, 9, 7)
    clean, _ = solve_rows(model, x, "anderson:9:1e-3")
    x[3] = torch.nan
    logits, solution = solve_rows(model, x, "anderson:9:1e-3")
    others = [row for row in range(20) if row != 3]
    assert bool(logits[3].isnan().all())
    assert int(solution.status[3]) == Status.NONFINITE
    torch.testing.assert_close(logits[others], clean[others], rtol=1e-4, atol=1e-5)
    assert not bool((solution.status[others] == Status.NONFINITE).any())


def test_no_gradient_is_recorded_and_none_is_left_on():
    model, x = _model(), torch.rand(3, 2, 9, 7, requires_grad=True)
    logits, solution = solve_rows(model, x, "picard:3")
    assert not logits.requires_grad
    assert not any(z.requires_grad for z in solution.state)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("method", ["implicit", "phantom"])
def test_differentiable_solves_are_not_padded(method):
    model = tiny_mdeq(2)
    use_batch_statistics(model, torch.rand(64, 2, 9, 7))
    make_contractive(model)
    model.solver = SolverSpec.parse("anderson:9:1e-3")
    model.gradient = GradientSpec(method=method, steps=1)
    seen = set()
    hook = lambda _m, args: seen.add(len(args[0]))  # noqa: E731
    model.f.fusions[0].conv.register_forward_pre_hook(hook)
    model(torch.rand(23, 2, 9, 7)).sum().backward()
    assert 23 in seen
    assert seen <= {16, 23}


def test_misuse_is_refused():
    model, x = _model(), torch.rand(3, 2, 9, 7)
    with pytest.raises(ConfigurationError, match="at least 1 row, but got 0"):
        solve_rows(model, x[:0], "picard:3")
    _, solution = solve_rows(model, x, "picard:3")
    with pytest.raises(ConfigurationError, match="must have 2 rows like the images, but has 3"):
        solve_rows(model, x[:2], "picard:3", solution.state)
    with pytest.raises(ConfigurationError, match="eval mode"):
        solve_rows(model.train(), x, "picard:3")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(2, 9, 7), r"must have shape \(batch, 2, 9, 7\), but got \(2, 9, 7\)"),
        (torch.rand(1, 2, 7, 9), r"but got \(1, 2, 7, 9\)"),
        (torch.ones(1, 2, 9, 7, dtype=torch.uint8), "floating point in .*, but got torch.uint8"),
    ],
)
def test_wrong_images_are_refused(x, message):
    with pytest.raises(InputError, match=message):
        _model()(x)
