"""Solves recorded once as a CUDA graph and replayed: hundreds of launches become one.

A short solve of a small cell is launch-bound on a GPU: the host takes longer to ask for its kernels
than they take. A solve of fixed steps in a fixed batch size always asks for the same ones, so they
are recorded and replayed. `RecordedSolves` decides when, keeps what was recorded, and checks it;
only `recorder` knows CUDA.

A recording is used only if it gave, to the bit, what the same solve gives without it: for the rows
at hand, and for others, so that nothing of the first ones stuck. It is dropped if the weights move
in memory.
"""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from deqcert.errors import PerformanceWarning
from deqcert.models.devices import product_precisions
from deqcert.models.fast_part import FastPart
from deqcert.models.recorder import Recorder
from deqcert.models.trees import leaves
from deqcert.solvers import map_tree

_BEFORE = 4
"""How often a solve is met before it is recorded: recording costs about as many."""
_MOST = 32
"""Recordings of a model; each keeps its working memory."""
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Work = Callable[[Any], Any]
"""A function of a tree of tensors that gives one, always by the same operations."""


class RecordedSolves:
    """The solves of one model that are recorded, by batch size, solver and kind of start.

    Copies of the model begin without any. Threads take turns.

    Args:
        make: Makes the recorder, once it is needed.
    """

    def __init__(self, make: Callable[[], Recorder]) -> None:
        self.active = True
        self._make = make
        self._recorder: Recorder | None = None
        self._weights: list[Tensor] = []
        self._parts: list[FastPart] = []
        self._addresses: tuple[int, ...] = ()
        self._met: Counter[Hashable] = Counter()
        self._refused: set[Hashable] = set()
        self._recordings: dict[Hashable, _Recording] = {}
        self._warned = False
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._recordings)

    def __deepcopy__(self, memo: dict[int, Any]) -> RecordedSolves:
        return RecordedSolves(self._make)

    def __reduce__(self) -> tuple[Any, ...]:
        return RecordedSolves, (self._make,)

    def __call__(self, model: nn.Module, name: Hashable, work: Work, inputs: Any) -> Any:
        """Return ``work(inputs)``, replayed if it has been recorded.

        Args:
            model: The model that has these recordings.
            name: What else the work depends on.
            work: A fixed-step solve by the model.
            inputs: Nested tuples of tensors, (batch, ...) each.
        """
        with self._lock:
            if not self._serves(model, inputs):
                return work(inputs)
            try:
                return self._solved(self._key(name, inputs), work, inputs)
            except (MemoryError, RuntimeError):  # memory, most likely: none is held here any longer
                self.active = False
                self._recordings.clear()
                raise

    def _solved(self, key: Hashable, work: Work, inputs: Any) -> Any:
        recording = self._recordings.get(key)
        if recording is not None:
            return recording(inputs)
        result = work(inputs)
        self._met[key] += 1
        full = len(self._recordings) >= _MOST
        if self._met[key] > _BEFORE and key not in self._refused and not full:
            self._record(key, work, inputs, result)
        return result

    def _record(self, key: Hashable, work: Work, inputs: Any, result: Any) -> None:
        """Record work that gives `result`, or refuse to forever."""
        assert self._recorder is not None
        why = "a replay gave other numbers"
        try:
            recording = _Recording(self._recorder, work, inputs)
            if recording.repeats(work, inputs, result):
                self._recordings[key] = recording
                return
        except Exception as error:  # whatever it is, the work itself has just succeeded
            why = str(error).strip().partition("\n")[0] or type(error).__name__
        self._refused.add(key)
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"a solve is not replayed as a CUDA graph, with the same results: {why}",
                PerformanceWarning,
                stacklevel=2,
            )

    def _serves(self, model: nn.Module, inputs: Any) -> bool:
        if not self.active:
            return False
        if self._recorder is None:
            self._recorder = self._make()
            self._weights = [*model.parameters(), *model.buffers()]
            self._parts = [part for part in model.modules() if isinstance(part, FastPart)]
        kind = self._recorder.device_type
        return (
            all(x.device.type == kind for x in leaves(inputs))
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled(kind)
            and self._recorder.ready()
        )

    def _key(self, name: Hashable, inputs: Any) -> Hashable:
        """Return all that decides which operations the work is; forget what reads old weights."""
        addresses = tuple(weight.data_ptr() for weight in self._weights)
        if addresses != self._addresses:
            self._recordings.clear()
            self._addresses = addresses
        forms = [(x.shape, x.stride(), x.dtype, x.device) for x in leaves(inputs)]
        active = tuple(part.active for part in self._parts)
        return (name, *forms, active, torch.is_inference_mode_enabled(), *_settings())


@contextmanager
def unrecorded(model: nn.Module) -> Iterator[bool]:
    """Let a model solve without recordings for a while; gives whether it could have any."""
    recorded = getattr(model, "recorded_solves", None)
    if recorded is None:
        yield False
        return
    before, recorded.active = recorded.active, False
    try:
        yield True
    finally:
        recorded.active = before


class _Recording:
    """One solve on memory of its own."""

    def __init__(self, recorder: Recorder, work: Work, inputs: Any) -> None:
        own = map_tree(_copy, inputs)
        self._inputs = leaves(own)
        self._replay, self._results = recorder.record(lambda: work(own))

    def __call__(self, inputs: Any) -> Any:
        """Return the work's results for these inputs, in fresh memory."""
        for own, given in zip(self._inputs, leaves(inputs), strict=True):
            own.copy_(given)
        self._replay()
        return map_tree(_copy, self._results)

    def repeats(self, work: Work, inputs: Any, result: Any) -> bool:
        """Return whether it gives the work's own results, and those for other numbers, too.

        Rows may be alike, as those are that fill up a batch: another order alone changes nothing.
        """
        others = map_tree(lambda x: _copy(x).copy_(0.75 * x.roll(1, 0)), inputs)
        return _same_bits(self(others), work(others)) and _same_bits(self(inputs), result)


def _copy(x: Tensor) -> Tensor:  # same shape
    """Return a copy that lies in memory as `x` does: kernels may round by that.

    Raises:
        RuntimeError: Several of its numbers share their memory.
    """
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device).copy_(x)


def _same_bits(found: Any, expected: Any) -> bool:
    """Return whether two trees agree to the bit, NaN included."""
    pairs = zip(leaves(found), leaves(expected), strict=True)
    return all(a.dtype == b.dtype and torch.equal(_bits(a), _bits(b)) for a, b in pairs)


def _bits(x: Tensor) -> Tensor:  # same shape
    return x.view(_INTEGERS[x.element_size()])


def _settings() -> tuple[Hashable, ...]:
    """Return what PyTorch chooses kernels by."""
    cudnn = torch.backends.cudnn
    return (
        *product_precisions(),
        cudnn.benchmark,
        cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
    )
