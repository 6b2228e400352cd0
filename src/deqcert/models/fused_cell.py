"""The MDEQ cell for inference: convolutions, channels last, between few kernels.

The same function as `MDEQCell` up to rounding. A residual block is two convolutions and two
kernels, a fusion its paths' convolutions and two kernels; `fused_kernels` says why. Whose kernels
these are, a CPU's or a GPU's, is the business of `cell_kernels`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from deqcert.models.cell_kernels import CellKernels, norm_of, norms_of
from deqcert.models.fast_part import FastPart
from deqcert.models.fast_part import last as _last
from deqcert.models.mdeq_cell import Fusion, MDEQCell, ResidualBlock
from deqcert.solvers.agreement import is_known_gpu
from deqcert.solvers.row_chunks import GRAIN

_LAST = torch.channels_last
_CHUNK_BYTES = 8 << 20
"""Size of the widest tensor of a chunk: small enough to be in a cache when the next layer reads it,
and not to come from fresh pages; large enough for the calls to cost little beside the work."""
_CHUNK_ROWS = 512
_ENOUGH_ROWS = 64
"""With fewer rows, small images leave matrix products too low: up to so many are taken if the
states fit, and a block whose widest tensor is too large takes its rows in parts."""


def fused_cell(cell: MDEQCell, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Return the fast form of a folded cell, or the cell itself where there is none.

    Args:
        cell: The cell, its convolutions folded, in float32.
        dtype: Precision the cell will be evaluated in.
        device: Where it will be evaluated.
    """
    if type(cell) is not MDEQCell or dtype not in (torch.float32, torch.bfloat16):
        return cell
    try:
        kernels = _kernels_for(cell, device)
    except ImportError:  # numba is an extra, and Triton comes with PyTorch for GPUs alone
        return cell
    return cell if kernels is None else FusedCell(cell, dtype, kernels)


def _kernels_for(cell: MDEQCell, device: torch.device) -> CellKernels | None:
    # They load compilers: only where they are used.
    if device.type == "cpu":
        from deqcert.models.cpu_kernels import CpuKernels

        return CpuKernels()
    if not is_known_gpu(device):
        return None
    from deqcert.models.gpu_kernels import MOST_PATHS, GpuKernels

    return GpuKernels(device) if len(cell.blocks) <= MOST_PATHS + 1 else None


class FusedCell(FastPart):
    """A cell that computes rows of its own precision on its device fast, and all others plainly.

    Args:
        plain: The cell it stands for.
        dtype: float32 or bfloat16.
        kernels: Those of the device it will be evaluated on.
    """

    def __init__(self, plain: MDEQCell, dtype: torch.dtype, kernels: CellKernels) -> None:
        super().__init__(plain, dtype, kernels.device)
        self._kernels = kernels
        self._blocks = [_Block(cast(ResidualBlock, b), dtype, kernels) for b in plain.blocks]
        self._fusions = [_Fusion(cast(Fusion, f), dtype, kernels) for f in plain.fusions]

    def forward(
        self,
        state: tuple[Tensor, ...],  # each (batch, c_i, H_i, W_i), or one row for all
        top: Tensor,  # (batch, c_0, H_0, W_0)
        masks: tuple[Tensor, ...] | None,  # each (batch, c_i, 1, 1)
    ) -> tuple[Tensor, ...]:  # each (batch, c_i, H_i, W_i), channels last
        """Return f(state)."""
        if masks is not None or not self.serves(*state, top):
            return self.plain(state, top, masks)
        inputs = [_last(part) for part in (*state, top)]
        out = tuple(_new_rows(part, len(top)) for part in state)
        common = self._common(inputs[:-1]) if len(state[0]) < len(top) else None

        def work(low: int, high: int) -> None:
            parts = [part[low:high] for part in inputs]
            to = [part[low:high] for part in out]
            if common is None:
                self._rows(parts[:-1], parts[-1], to)
            else:
                self._rows_from(common, parts[-1], to)

        self._kernels.over_rows(work, len(top), self._chunk_rows(inputs))
        return out

    def _rows(self, state: list[Tensor], top: Tensor, out: list[Tensor]) -> None:
        blocks = [
            block(z, top if i == 0 else None)
            for i, (block, z) in enumerate(zip(self._blocks, state, strict=True))
        ]
        self._fuse(blocks, out, [{} for _ in self._fusions])

    def _rows_from(self, common: _Common, top: Tensor, out: list[Tensor]) -> None:
        rows = len(top)
        first = _repeated(common.wide, rows)
        self._blocks[0].end(first, _repeated(common.state, rows), top)
        blocks = [first, *(_repeated(block, rows) for block in common.blocks)]
        known = [{s: _repeated(x, rows) for s, x in paths.items()} for paths in common.paths]
        self._fuse(blocks, out, known)

    def _fuse(
        self, blocks: list[Tensor], out: list[Tensor], known: list[dict[int, Tensor]]
    ) -> None:
        for fusion, to, paths in zip(self._fusions, out, known, strict=False):
            fusion(blocks, to, paths)
        if not self._fusions:
            out[0].copy_(blocks[0])

    def _common(self, state: list[Tensor]) -> _Common:  # one row each
        """Compute what does not depend on the injection, once for all rows."""
        made: list[_Common] = []

        def work(low: int, high: int) -> None:
            del low, high
            blocks = [b(z, None) for b, z in zip(self._blocks[1:], state[1:], strict=True)]
            paths = [fusion.from_below(blocks) for fusion in self._fusions]
            made.append(_Common(state[0], self._blocks[0].widen(state[0]), blocks, paths))

        self._kernels.over_rows(work, 1, 1)  # inside one thread, as all rows are
        return made[0]

    def _chunk_rows(self, parts: list[Tensor]) -> int:
        narrow = min(_rows_at_once(z) for z in parts)
        wide = min(_rows_at_once(z, b.expansion) for b, z in zip(self._blocks, parts, strict=False))
        return min(_CHUNK_ROWS, max(wide, min(narrow, _ENOUGH_ROWS)))


def _rows_at_once(z: Tensor, widened: int = 1) -> int:  # (rows, c, H, W)
    """Return how many rows, a multiple of `GRAIN`, keep tensors of that many times c small."""
    size = widened * z[0].numel() * z.element_size()
    return max(1, _CHUNK_BYTES // (size * GRAIN)) * GRAIN


@dataclass(frozen=True)
class _Common:
    """What all rows of one state share; a row of each.

    Attributes:
        state: The state at the highest resolution.
        wide: What its block makes of it before the injection is added.
        blocks: Whole blocks of the lower resolutions.
        paths: For each fusion what comes from those, by source.
    """

    state: Tensor
    wide: Tensor
    blocks: list[Tensor]
    paths: list[dict[int, Tensor]]


def _new_rows(like: Tensor, rows: int) -> Tensor:  # (rows, c, H, W)
    return like.new_empty(rows, *like.shape[2:], like.shape[1]).permute(0, 3, 1, 2)


def _repeated(row: Tensor, rows: int) -> Tensor:  # (1, c, H, W) -> (rows, c, H, W)
    return _new_rows(row, rows).copy_(row)


class _Block:
    """`ResidualBlock`: two convolutions and two kernels."""

    def __init__(self, block: ResidualBlock, dtype: torch.dtype, kernels: CellKernels) -> None:
        self._kernels = kernels
        self.conv1 = kernels.conv(block.conv1, dtype)
        self.conv2 = kernels.conv(block.conv2, dtype)
        norms = (block.norm1, block.norm2, block.norm3)
        self.first, self.second, self.third = (norm_of(kernels, norm) for norm in norms)
        self.expansion = self.conv1.channels // self.conv2.channels

    def __call__(self, z: Tensor, injection: Tensor | None) -> Tensor:  # shapes (rows, c, H, W)
        parts = self._kernels.parts(len(z), _rows_at_once(z, self.expansion))
        if len(parts) == 1:
            return self._rows(z, injection)
        made = [self._rows(z[p], None if injection is None else injection[p]) for p in parts]
        return _last(torch.cat(made))

    def _rows(self, z: Tensor, injection: Tensor | None) -> Tensor:
        out = self.widen(z)
        self.end(out, z, injection)
        return out

    def widen(self, z: Tensor) -> Tensor:
        """Return what both convolutions make of a state."""
        wide = self.conv1(z)
        self._kernels.norm_relu(wide, self.first)
        return self.conv2(wide)

    def end(self, out: Tensor, z: Tensor, injection: Tensor | None) -> None:
        """Replace that by what the block gives."""
        self._kernels.end_block(out, injection, z, self.second, self.third)


class _Path:
    """From one resolution to another: convolutions, and kernels between them, but the last norm."""

    def __init__(self, path: nn.Module, dtype: torch.dtype, kernels: CellKernels) -> None:
        assert isinstance(path, nn.Sequential)
        self._kernels = kernels
        convs = [part for part in path if isinstance(part, nn.Conv2d)]
        self.convs = [kernels.conv(conv, dtype) for conv in convs]
        *between, self.last_norm = [part for part in path if isinstance(part, nn.GroupNorm)]
        self.norms = [norm_of(kernels, norm) for norm in between]

    def __call__(self, x: Tensor) -> Tensor:  # (rows, c_from, H, W) -> (rows, c_to, H', W')
        for conv, norm in zip(self.convs[:-1], self.norms, strict=True):
            x = conv(x)
            self._kernels.norm_relu(x, norm)
        return self.convs[-1](x)


class _Fusion:
    """`Fusion`: the convolutions of all paths, one kernel for their sum, one for the end."""

    def __init__(self, fusion: Fusion, dtype: torch.dtype, kernels: CellKernels) -> None:
        self._kernels = kernels
        self.into = fusion.into
        self.paths = {
            source: _Path(path, dtype, kernels)
            for source, path in enumerate(fusion.paths)
            if source != self.into
        }
        self.norms = norms_of(kernels, [path.last_norm for path in self.paths.values()])
        self.conv = kernels.conv(fusion.conv, dtype)
        self.norm = norm_of(kernels, fusion.norm)

    def from_below(self, blocks: list[Tensor]) -> dict[int, Tensor]:
        """Return what comes from the blocks of all but the highest resolution, by source."""
        return {s: path(blocks[s - 1]) for s, path in self.paths.items() if s > 0}

    def __call__(self, blocks: list[Tensor], to: Tensor, known: dict[int, Tensor]) -> None:
        """Write f's part at this resolution to `to`; `known` are paths that are there already."""
        base = blocks[self.into]
        paths = [
            known[source] if source in known else path(blocks[source])
            for source, path in self.paths.items()
        ]
        total = torch.empty_like(base, memory_format=_LAST)
        self._kernels.fuse(base, paths, self.norms, total)
        self._kernels.norm(self.conv(total), to, self.norm)
