"""The kernels of a fast cell on a GPU: `triton_kernels`, launched on tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deqcert.models import triton_kernels  # loads a compiler: imported only where it is used
from deqcert.models.cell_kernels import Norm, nearest
from deqcert.models.gpu_conv import GpuConv
from deqcert.models.gpu_images import numbers, written
from deqcert.solvers.launching import OPTIONS, current, power

MOST_PATHS = 3
"""Images that the kernel of a fusion takes beside its base: those of four resolutions."""
_TILE = 4096
"""Numbers of a tile: 16 registers of each of 256 threads."""
_LINE = 64
"""Bytes that lie side by side a program should read at once: two sectors of memory."""


class GpuKernels:
    """`CellKernels` of a GPU; all rows at once.

    Args:
        device: The GPU. (Triton's interpreter takes tensors of the CPU.)
    """

    def __init__(self, device: torch.device) -> None:
        self.device = torch.empty(0, device=device).device  # "cuda" is none that a tensor has
        self._places: dict[tuple[int, ...], Tensor] = {}

    def constant(self, values: Tensor) -> Tensor:
        """Return float32 numbers as the kernels take them."""
        return values.to(self.device).contiguous()

    def over_rows(self, work: Callable[[int, int], None], rows: int, most: int) -> None:
        """Call ``work(0, rows)``; kernels are launched on the current device, which is set."""
        del most
        with current(self.device):
            work(0, rows)

    def parts(self, rows: int, most: int) -> list[slice]:
        """Return one part with all rows."""
        del most
        return [slice(0, rows)]

    def conv(self, conv: nn.Module, dtype: torch.dtype) -> GpuConv:
        """Return the fast form of a convolution."""
        return GpuConv(conv, dtype, self.device)

    def norm(self, x: Tensor, out: Tensor, norm: Norm) -> None:
        """Write GroupNorm(x) to `out`."""
        self._norm(x, out, norm, relu=False)

    def norm_relu(self, x: Tensor, norm: Norm) -> None:
        """Replace `x` by relu(GroupNorm(x))."""
        self._norm(x, x, norm, relu=True)

    def _norm(self, x: Tensor, out: Tensor, norm: Norm, *, relu: bool) -> None:
        images = numbers(x), written(out)
        _run("norm", x, norm.groups, *images, norm.affine, norm.eps, RELU=relu)

    def end_block(
        self, x: Tensor, injection: Tensor | None, z: Tensor, first: Norm, second: Norm
    ) -> None:
        """Replace `x` by second(relu(first(x + injection) + z))."""
        added = z if injection is None else injection
        images = written(x), numbers(added), numbers(z)
        norms = first.affine, second.affine, second.eps
        _run("end_block", x, second.groups, *images, *norms, ADD=injection is not None)

    def fuse(self, base: Tensor, paths: Sequence[Tensor], norms: Norm, out: Tensor) -> None:
        """Write relu(base + sum of the norms of all paths, enlarged to the size of base)."""
        given = [*paths, *[paths[0]] * (MOST_PATHS - len(paths))]
        images = [numbers(image) for image in (base, *given)]
        places = [self._sources(path, base) for path in given]
        pixels = {f"P{i}": path.shape[2] * path.shape[3] for i, path in enumerate(given)}
        rest = norms.affine, written(out), norms.eps
        _run("fuse", base, norms.groups, *images, *places, *rest, S=len(paths), **pixels)

    def _sources(self, path: Tensor, base: Tensor) -> Tensor:  # (H * W,) int32
        """Return which pixel of a path stands at each pixel of the base; made once."""
        key = (*path.shape[2:], *base.shape[2:])
        if key not in self._places:
            (h, w), (height, width) = path.shape[2:], base.shape[2:]
            lines, columns = nearest(h, height, self.device), nearest(w, width, self.device)
            self._places[key] = (lines[:, None] * w + columns).flatten().int()
        return self._places[key]


def _run(name: str, x: Tensor, groups: int, *arguments: Any, **constants: int) -> None:
    """Launch a kernel for all rows and groups of images like `x`, (rows, C, H, W)."""
    rows, channels, height, width = x.shape
    sizes = tile(height * width, channels, groups, x.element_size())
    grid = (rows, -(-groups // sizes["BG"]))
    triton_kernels.KERNELS[name][grid](*arguments, **constants, **sizes, **OPTIONS)


def tile(pixels: int, channels: int, groups: int, itemsize: int) -> dict[str, int]:
    """Return the sizes of an image and of a tile, and the warps of a program.

    A program takes as many groups as it needs to read whole lines of memory.

    >>> tile(1024, 40, 8, 4)
    {'P': 1024, 'C': 40, 'G': 8, 'BP': 128, 'BG': 4, 'BC': 8, 'num_warps': 8}
    """
    size = channels // groups
    together = min(-(-_LINE // (size * itemsize)), groups)
    whole, inside = power(together), power(size)
    high = min(power(pixels), max(1, _TILE // (whole * inside)))
    warps = 8 if high * whole * inside >= _TILE else 4
    sizes = {"P": pixels, "C": channels, "G": groups, "BP": high, "BG": whole, "BC": inside}
    return {**sizes, "num_warps": warps}
