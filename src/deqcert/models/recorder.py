"""What records the work of a device and replays it: the interface, and CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

WARM_UPS = 2
"""How often work is done before it is recorded: what is made once must be there."""


class Recorder(Protocol):
    """What records and replays work on one kind of device.

    Attributes:
        device_type: Of the tensors whose work it records.
    """

    device_type: str

    def ready(self) -> bool:
        """Return whether work may be recorded or replayed here and now."""
        ...

    def record(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Return what repeats `work` on the same memory, and the tree it writes to each time.

        Raises:
            RuntimeError: The work cannot be recorded.
        """
        ...


class CudaRecorder:
    """CUDA graphs; all of a model's share one pool of memory.

    That is safe because they are replayed one at a time, on the stream of the first recording: each
    writes its working memory before it reads it, and its results stay allocated.

    Args:
        device: The GPU.
    """

    device_type = "cuda"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.current_stream(device)
        # Of this device: PyTorch's own for recordings is one of the first GPU that recorded.
        self._side = torch.cuda.Stream(device)

    def ready(self) -> bool:
        """Return whether this is the stream of the recordings, and nobody else records on it."""
        with torch.cuda.device(self._device):
            here = torch.cuda.current_stream()
            return here == self._stream and not torch.cuda.is_current_stream_capturing()

    def record(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Return what replays the work, and the tree it writes to each time."""
        with torch.cuda.device(self._device):
            graph, results = self._recorded(work)

        def replay() -> None:
            with torch.cuda.device(self._device):
                graph.replay()

        return replay, results

    def _recorded(self, work: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
        side = self._side
        side.wait_stream(self._stream)
        with torch.cuda.stream(side):  # what is made once must be made before the recording
            for _ in range(WARM_UPS):
                work()
        self._stream.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on allocating, and copying noise to the device.
        mode = "thread_local"
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=side, capture_error_mode=mode):
                results = work()
        finally:  # PyTorch stays on the other stream where a recording fails
            torch.cuda.set_stream(self._stream)
        return graph, results
