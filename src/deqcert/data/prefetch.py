"""Loading batches while the caller works on earlier ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deqcert.data.dataset import ChooseBox, Dataset
from deqcert.errors import ConfigurationError


def prefetched(
    data: Dataset,
    batches: Iterable[Sequence[int] | NDArray[np.integer]],
    *,
    ahead: int = 2,
    choose: ChooseBox | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``data.batch(indices)`` for each of `batches`, in order, loaded in the background.

    A single thread loads, so what comes out never depends on timing; a `FolderDataset` decodes
    within it on its own threads. An error is raised where its batch would have come; abandoning
    the iterator stops the loading.

    Args:
        data: The data set.
        batches: Indices of each batch; taken `ahead` batches early, so may be endless.
        ahead: Most batches loaded and not yet taken, >= 1: it bounds the memory.
        choose: Which windows of the original images to load; None means the images themselves.
            It is called on other threads.

    Yields:
        float32 images in [0, 1], shape (B, C, H, W), and int64 labels, shape (B,).

    Raises:
        ConfigurationError: `ahead` below 1, or windows of a data set that keeps no originals.
    """
    if ahead < 1:
        raise ConfigurationError(f"batches loaded ahead must be >= 1, but got {ahead}")
    return _prefetched(data, batches, ahead, choose)


def _prefetched(
    data: Dataset,
    batches: Iterable[Sequence[int] | NDArray[np.integer]],
    ahead: int,
    choose: ChooseBox | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        for indices in batches:
            waiting.append(pool.submit(data.batch, indices, choose=choose))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
