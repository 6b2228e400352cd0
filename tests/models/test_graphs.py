"""Solves replayed: when they are recorded, what is checked, and what ends it.

`Repeater` is a recorder for the CPU: it replays by calling the work again on the same memory, and
copies what comes out to where the first results were. That is all that a recorder promises, so the
rest can be tested without a GPU.
"""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from functools import partial

import pytest
import torch

from deqcert.errors import PerformanceWarning
from deqcert.models import build, graphs, inference_copy, solve_rows
from deqcert.models.fast_part import plain_parts
from deqcert.models.graphs import RecordedSolves, unrecorded
from deqcert.models.recorder import WARM_UPS, CudaRecorder
from deqcert.models.trees import leaves
from tests.models.made import TanhDEQ

FIELDS = ("state", "status", "steps", "residual", "cell_evaluations")


class Repeater:
    """Replays by doing the work once more, into the memory of the first results."""

    device_type = "cpu"

    def __init__(self):
        self.recorded, self.replayed, self.here = 0, 0, True

    def ready(self):
        return self.here

    def record(self, work):
        self.recorded += 1
        results = work()

        def replay():
            self.replayed += 1
            for own, new in zip(leaves(results), leaves(work()), strict=True):
                own.copy_(new)

        return replay, results


class Raising(Repeater):
    def record(self, work):
        self.recorded += 1
        raise RuntimeError("operation not permitted when stream is capturing\nand more lines")


class Blurred(Repeater):
    """Gives other bits: the last one of a logit."""

    def record(self, work):
        replay, results = super().record(work)

        def blurred():
            replay()
            results[0].copy_(torch.nextafter(results[0], torch.tensor(torch.inf).to(results[0])))

        return blurred, results


class Stuck(Repeater):
    """Gives the first results again and again: right for the rows of the recording alone."""

    def record(self, work):
        self.recorded += 1
        results = work()
        return lambda: None, results


@pytest.fixture(params=["mdeq-digits", "tanh"])
def model(request):
    torch.manual_seed(1)
    made = TanhDEQ(pair=True) if request.param == "tanh" else build(request.param)
    return inference_copy(made.eval())


def recording(model, recorder):
    model.recorded_solves = RecordedSolves(lambda: recorder)
    return recorder


def images(model, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    return torch.rand(rows, *model.input_shape, generator=generator).to(dtype)


def same(found, expected):
    """Assert that logits and solutions agree to the bit."""
    assert torch.equal(found[0], expected[0])
    for name in FIELDS:
        parts = (leaves(getattr(solved[1], name)) for solved in (found, expected))
        for a, b in zip(*parts, strict=True):
            assert a.dtype == b.dtype
            assert a.stride() == b.stride()
            assert torch.equal(a, b), name
    assert found[1].rows_evaluated == expected[1].rows_evaluated


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("spec", ["picard:3", "anderson:4", "broyden:3"])
def test_a_replay_gives_what_the_solve_gives(model, spec, warm):
    recorder = recording(model, Repeater())
    start = solve_rows(model, images(model, 32, 50), "picard:1")[1].state if warm else None
    for seed in range(graphs._BEFORE + 3):
        x = images(model, 32, seed)
        found = solve_rows(model, x, spec, start)
        with unrecorded(model) as any_recorded:
            assert any_recorded
            expected = solve_rows(model, x, spec, start)
        same(found, expected)
    # Two replays to check the recording, then one for each of two solves.
    assert (recorder.recorded, recorder.replayed) == (1, 4)


def test_results_outlast_the_next_replay(model):
    recorder = recording(model, Repeater())
    x = [images(model, 16, seed) for seed in range(9)]
    kept = [solve_rows(model, part, "picard:2") for part in x]
    assert recorder.replayed > 3
    before = model.recorded_solves
    model.recorded_solves = None
    for part, found in zip(x, kept, strict=True):
        same(found, solve_rows(model, part, "picard:2"))
    model.recorded_solves = before


def again_and_again(model, rows=16, spec="picard:2", times=8):
    for seed in range(times):
        solve_rows(model, images(model, rows, seed), spec)


def test_each_size_solver_and_kind_of_start_has_its_own(model):
    recorder = recording(model, Repeater())
    state = solve_rows(model, images(model, 16), "picard:1")[1].state
    for rows, spec in ((16, "picard:2"), (32, "picard:2"), (16, "picard:3"), (16, "anderson:2")):
        again_and_again(model, rows, spec)
    assert recorder.recorded == 4
    for _ in range(8):
        solve_rows(model, images(model, 16), "picard:2", state)
    assert recorder.recorded == 5
    again_and_again(model)
    assert recorder.recorded == 5


def test_early_stops_are_not_recorded(model):
    recorder = recording(model, Repeater())
    again_and_again(model, spec="picard:3:1e-3")
    assert recorder.recorded == 0
    again_and_again(model, rows=416)  # a whole batch and a whole one
    assert recorder.recorded == 2


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("spec", ["picard:3", "anderson:4"])
def test_a_batch_is_filled_up_to_the_next_whole_one(model, spec, warm):
    recorder = recording(model, Repeater())
    start = solve_rows(model, images(model, 17, 50), "picard:1")[1].state if warm else None
    for seed in range(graphs._BEFORE + 3):
        x = images(model, 17, seed)
        found = solve_rows(model, x, spec, start)
        with unrecorded(model):
            expected = solve_rows(model, x, spec, start)
        same(found, expected)
        assert len(found[0]) == 17
    assert recorder.recorded == 1
    more = images(model, 29, 3)
    state = None if start is None else solve_rows(model, more, "picard:1")[1].state
    replayed = recorder.replayed
    found = solve_rows(model, more, spec, state)
    assert (recorder.recorded, recorder.replayed) == (1, replayed + 1)  # that of 32 rows
    with unrecorded(model):
        same(found, solve_rows(model, more, spec, state))


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads share the rows of a solve: what is counted here is counted for one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_neither_are_other_devices_streams_nor_gradients(model):
    assert model.recorded_solves is None  # a copy on the CPU
    recorder = recording(model, Repeater())
    recorder.device_type = "cuda"
    again_and_again(model)
    recorder.device_type, recorder.here = "cpu", False
    again_and_again(model)
    recorder.here = True
    with torch.autocast("cpu"):
        again_and_again(model)
    assert recorder.recorded == 0
    again_and_again(model)
    assert recorder.recorded == 1


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Raising, "not permitted when stream is capturing$"),
        (Blurred, "a replay gave other numbers"),
        (Stuck, "a replay gave other numbers"),
    ],
)
def test_what_cannot_be_recorded_is_solved_as_ever(model, kind, why):
    recorder = recording(model, kind())
    eager = copy.deepcopy(model)
    eager.recorded_solves = None

    def solve_and_compare():
        for seed in range(8):
            x = images(model, 16, seed)
            same(solve_rows(model, x, "picard:2"), solve_rows(eager, x, "picard:2"))

    with pytest.warns(PerformanceWarning, match=why) as caught:
        solve_and_compare()
    assert len(caught) == 1
    assert recorder.recorded == 1  # never tried again
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        again_and_again(model, 32)
    assert recorder.recorded == 2


def test_one_image_many_times_shows_as_much(model):
    recorder = recording(model, Stuck())
    x = images(model, 1).repeat(16, 1, 1, 1)

    def solve_again_and_again():
        for _ in range(8):
            solve_rows(model, x, "picard:2")

    with pytest.warns(PerformanceWarning, match="a replay gave other numbers"):
        solve_again_and_again()
    assert (recorder.recorded, len(model.recorded_solves)) == (1, 0)


def test_plain_parts_have_recordings_of_their_own():
    pytest.importorskip("numba")
    model = inference_copy(build("mdeq-digits").eval())
    recorder = recording(model, Repeater())
    again_and_again(model)
    fast = solve_rows(model, images(model, 16), "picard:2")
    with plain_parts(model):
        again_and_again(model)
        plain = solve_rows(model, images(model, 16), "picard:2")
    assert recorder.recorded == 2
    assert not torch.equal(fast[0], plain[0])
    same(solve_rows(model, images(model, 16), "picard:2"), fast)


def test_weights_that_move_end_all_recordings():
    model = inference_copy(TanhDEQ().eval())
    recorder = recording(model, Repeater())
    again_and_again(model)
    replayed = recorder.replayed
    model.a.data = -model.a.data
    found = solve_rows(model, images(model, 16), "picard:2")
    # Recorded anew, which is checked by two replays; the solve itself was none.
    assert (recorder.recorded, recorder.replayed) == (2, replayed + 2)
    model.recorded_solves = None
    same(found, solve_rows(model, images(model, 16), "picard:2"))


def test_where_memory_runs_out_none_is_held(model):
    recorder = recording(model, Repeater())
    again_and_again(model)
    assert len(model.recorded_solves) == 1

    def failing(inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with torch.no_grad(), pytest.raises(torch.OutOfMemoryError):
        model.recorded_solves(model, "other", failing, (images(model, 16), None))
    assert len(model.recorded_solves) == 0
    again_and_again(model)
    assert recorder.recorded == 1


def test_memory_that_runs_out_while_recording_stops_nothing(model):
    class Full(Repeater):
        def record(self, work):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    recording(model, Full())
    with pytest.warns(PerformanceWarning, match="out of memory"):
        again_and_again(model)


def test_only_so_many_are_kept(model, monkeypatch):
    monkeypatch.setattr(graphs, "_MOST", 2)
    recorder = recording(model, Repeater())
    for rows in (16, 32, 64):
        again_and_again(model, rows)
    assert recorder.recorded == 2


def test_copies_begin_without_any():
    model = inference_copy(TanhDEQ().eval())
    recorder = recording(model, Repeater())
    again_and_again(model)
    copied = copy.deepcopy(model)
    assert copied.recorded_solves is not model.recorded_solves
    assert len(copied.recorded_solves) == 0
    again_and_again(copied)
    assert recorder.recorded == 2
    sent = pickle.loads(pickle.dumps(RecordedSolves(partial(CudaRecorder, torch.device("cuda")))))
    assert sent._make.func is CudaRecorder
    assert len(sent) == 0


def test_a_model_without_recordings_has_none_to_switch_off(model):
    with unrecorded(model) as any_recorded:
        assert not any_recorded


def test_not_a_number_is_the_same_as_itself(model):
    recorder = recording(model, Repeater())
    for _ in range(8):
        x = images(model, 16)
        x[3] = torch.nan
        logits, _ = solve_rows(model, x, "picard:2")
        assert bool(logits[3].isnan().all())
    assert recorder.replayed > 2


class Here:
    """Notes what is entered, as contexts of `torch.cuda` are."""

    def __init__(self, log, *what):
        self.log, self.what = log, what

    def __enter__(self):
        self.log.append(("enter", *self.what))

    def __exit__(self, *error):
        self.log.append(("leave", *self.what))


class Cuda:
    """What the recorder asks of `torch.cuda`, written down."""

    def __init__(self):
        self.log, self.capturing, self.current = [], False, "stream 0"

    def graph_pool_handle(self):
        return "pool"

    def current_stream(self, device=None):
        return Line(self.log, self.current)

    def is_current_stream_capturing(self):
        return self.capturing

    def Stream(self, device):  # noqa: N802
        return Line(self.log, f"side of {device}")

    def device(self, device):
        return Here(self.log, str(device))

    def stream(self, stream):
        return Here(self.log, stream.name)

    def set_stream(self, stream):
        self.log.append(("on", stream.name))

    def CUDAGraph(self):  # noqa: N802
        return Replayed(self.log)

    def graph(self, graph, *, pool, stream, capture_error_mode):
        return Here(self.log, "graph", pool, stream.name, capture_error_mode)


class Line:
    def __init__(self, log, name):
        self.log, self.name = log, name

    def __eq__(self, other):
        return self.name == other.name

    def wait_stream(self, other):
        self.log.append((self.name, "waits for", other.name))


class Replayed:
    def __init__(self, log):
        self.log = log

    def replay(self):
        self.log.append("replay")


def test_what_is_asked_of_cuda(monkeypatch):
    cuda = Cuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    recorder = CudaRecorder(torch.device("cuda", 1))
    assert recorder.ready()
    cuda.log.clear()
    replay, results = recorder.record(lambda: cuda.log.append("work") or "results")
    assert results == "results"
    name = "side of cuda:1"
    side, graph = ("enter", name), ("enter", "graph", "pool", name, "thread_local")
    assert cuda.log == [
        ("enter", "cuda:1"),
        (name, "waits for", "stream 0"),
        side,
        *["work"] * WARM_UPS,
        ("leave", *side[1:]),
        ("stream 0", "waits for", name),
        graph,
        "work",
        ("leave", *graph[1:]),
        ("on", "stream 0"),
        ("leave", "cuda:1"),
    ]
    cuda.log.clear()
    replay()
    assert cuda.log == [("enter", "cuda:1"), "replay", ("leave", "cuda:1")]
    cuda.current = "another"
    assert not recorder.ready()
    cuda.current, cuda.capturing = "stream 0", True
    assert not recorder.ready()


def test_that_is_what_pytorch_has():
    contexts = inspect.signature(torch.cuda.graph.__init__).parameters
    assert {"cuda_graph", "pool", "stream", "capture_error_mode"} <= set(contexts)
    names = ("graph_pool_handle", "current_stream", "set_stream", "Stream", "device", "stream")
    assert all(
        hasattr(torch.cuda, name) for name in (*names, "CUDAGraph", "is_current_stream_capturing")
    )


def test_a_recording_that_fails_leaves_no_other_stream(monkeypatch):
    cuda, left = Cuda(), "the end of a recording failed"

    class Failing(Here):
        def __exit__(self, *error):
            raise RuntimeError(left)

    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(Cuda, "graph", lambda self, graph, **how: Failing(self.log, "graph"))
    recorder = CudaRecorder(torch.device("cuda", 1))
    with pytest.raises(RuntimeError, match=left):
        recorder.record(lambda: None)
    assert cuda.log[-2:] == [("on", "stream 0"), ("leave", "cuda:1")]
