"""The kernels of a fast cell on a CPU: `fused_kernels` (numba), given the memory of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deqcert.models import fused_kernels  # loads a compiler: imported only where it is used
from deqcert.models.cell_kernels import Norm, nearest
from deqcert.models.fast_conv import FastConv
from deqcert.models.fast_part import array
from deqcert.solvers.row_chunks import chunks, for_chunks

_CPU = torch.device("cpu")


class CpuKernels:
    """`CellKernels` of the CPU: a cacheful of rows at once, each inside one thread."""

    device = _CPU

    def constant(self, values: Tensor) -> np.ndarray:
        """Return float32 numbers as the kernels take them."""
        return values.numpy()

    def over_rows(self, work: Callable[[int, int], None], rows: int, most: int) -> None:
        """Call ``work(low, high)`` for chunks of rows, on as many threads as PyTorch uses."""
        for_chunks(work, rows, most)

    def parts(self, rows: int, most: int) -> list[slice]:
        """Return parts of at most so many rows."""
        return [slice(*part) for part in chunks(rows, most, 1)]

    def conv(self, conv: nn.Module, dtype: torch.dtype) -> FastConv:
        """Return the fast form of a convolution."""
        return FastConv(conv, dtype)

    def norm(self, x: Tensor, out: Tensor, norm: Norm) -> None:
        """Write GroupNorm(x) to `out`."""
        fused_kernels.norm(array(x), array(out), *norm.affine, norm.groups, norm.eps)

    def norm_relu(self, x: Tensor, norm: Norm) -> None:
        """Replace `x` by relu(GroupNorm(x))."""
        fused_kernels.norm_relu(array(x), *norm.affine, norm.groups, norm.eps)

    def end_block(
        self, x: Tensor, injection: Tensor | None, z: Tensor, first: Norm, second: Norm
    ) -> None:
        """Replace `x` by second(relu(first(x + injection) + z))."""
        state = array(z)
        added = state if injection is None else array(injection)
        images: Any = (array(x), injection is not None, added, state)
        fused_kernels.end_block(*images, first.affine, second.affine, second.groups, second.eps)

    def fuse(self, base: Tensor, paths: Sequence[Tensor], norms: Norm, out: Tensor) -> None:
        """Write relu(base + sum of the norms of all paths, enlarged to the size of base)."""
        sizes = tuple((path.shape[2], path.shape[3]) for path in paths)
        fused_kernels.fuse(
            array(base),
            tuple(map(array, paths)),
            norms.affine,
            *_sources(sizes, base.shape[2], base.shape[3]),
            norms.groups,
            norms.eps,
            array(out),
        )


@lru_cache(maxsize=64)
def _sources(
    sizes: tuple[tuple[int, int], ...], height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:  # (S, height), (S, width) int64
    """Return which line and pixel of each source stands where in an image of the given size."""
    rows = np.stack([nearest(h, height, _CPU).numpy() for h, _ in sizes])
    return rows, np.stack([nearest(w, width, _CPU).numpy() for _, w in sizes])
