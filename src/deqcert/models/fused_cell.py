"""The MDEQ cell for inference on a CPU: PyTorch's convolutions, channels last, between few kernels.

The same function as `MDEQCell` up to rounding. A residual block is two convolutions and two
kernels, a fusion its paths' convolutions and two kernels; `fused_kernels` says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from deqcert.models.fast_conv import FastConv
from deqcert.models.fast_part import FastPart
from deqcert.models.fast_part import array as _array
from deqcert.models.fast_part import last as _last
from deqcert.models.mdeq_cell import Fusion, MDEQCell, ResidualBlock
from deqcert.solvers.row_chunks import GRAIN, chunks, for_chunks

_LAST = torch.channels_last
_CHUNK_BYTES = 8 << 20
"""Size of the widest tensor of a chunk: small enough to be in a cache when the next layer reads it,
and not to come from fresh pages; large enough for the calls to cost little beside the work."""
_CHUNK_ROWS = 512
_ENOUGH_ROWS = 64
"""With fewer rows, small images leave matrix products too low: up to so many are taken if the
states fit, and a block whose widest tensor is too large takes its rows in parts."""


def fused_cell(cell: MDEQCell, dtype: torch.dtype) -> nn.Module:
    """Return the fast form of a folded cell, or the cell itself where there is none.

    Args:
        cell: The cell, its convolutions folded, in float32.
        dtype: Precision the cell will be evaluated in.
    """
    if type(cell) is not MDEQCell or dtype not in (torch.float32, torch.bfloat16):
        return cell
    try:
        _kernels()
    except ImportError:  # numba is an extra
        return cell
    return FusedCell(cell, dtype)


@lru_cache(maxsize=1)
def _kernels() -> Any:
    from deqcert.models import fused_kernels  # loads a compiler: only where it is used

    return fused_kernels


def lacks_fast_cell(model: nn.Module) -> bool:
    """Return whether a copy for the CPU computes MDEQ cells plainly, for want of numba."""
    cells = {id(part.plain) for part in model.modules() if isinstance(part, FusedCell)}
    return any(
        type(part) is MDEQCell and id(part) not in cells and _device(part).type == "cpu"
        for part in model.modules()
    )


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


class FusedCell(FastPart):
    """A cell that computes rows of its own precision on the CPU fast, and all others plainly.

    Args:
        plain: The cell it stands for.
        dtype: float32 or bfloat16.
    """

    def __init__(self, plain: MDEQCell, dtype: torch.dtype) -> None:
        super().__init__(plain, dtype)
        self._blocks = [_Block(cast(ResidualBlock, b), dtype) for b in plain.blocks]
        self._fusions = [_Fusion(cast(Fusion, f), dtype) for f in plain.fusions]

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

        for_chunks(work, len(top), self._chunk_rows(inputs))
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

        for_chunks(work, 1, 1)  # inside one thread, as all rows are
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


class _Norm:
    """What a kernel needs of a GroupNorm, kept in float32 whatever the precision."""

    def __init__(self, norm: nn.Module) -> None:
        assert isinstance(norm, nn.GroupNorm)
        one, zero = torch.ones(norm.num_channels), torch.zeros(norm.num_channels)
        weight = one if norm.weight is None else norm.weight.detach().float()
        bias = zero if norm.bias is None else norm.bias.detach().float()
        self.affine = torch.stack([weight, bias]).cpu().numpy()  # (2, C)
        self.groups, self.eps = norm.num_groups, norm.eps


class _Block:
    """`ResidualBlock`: two convolutions and two kernels."""

    def __init__(self, block: ResidualBlock, dtype: torch.dtype) -> None:
        self.conv1, self.conv2 = FastConv(block.conv1, dtype), FastConv(block.conv2, dtype)
        self.norms = [_Norm(norm) for norm in (block.norm1, block.norm2, block.norm3)]
        self.expansion = len(self.conv1.weight) // len(self.conv2.weight)

    def __call__(self, z: Tensor, injection: Tensor | None) -> Tensor:  # shapes (rows, c, H, W)
        parts = [slice(*part) for part in chunks(len(z), _rows_at_once(z, self.expansion), 1)]
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
        _norm_relu(wide, self.norms[0])
        return self.conv2(wide)

    def end(self, out: Tensor, z: Tensor, injection: Tensor | None) -> None:
        """Replace that by what the block gives."""
        _, second, third = self.norms
        state = _array(z)
        added = state if injection is None else _array(injection)
        _kernels().end_block(
            _array(out),
            injection is not None,
            added,
            state,
            second.affine,
            third.affine,
            second.groups,
            second.eps,
        )


class _Path:
    """From one resolution to another: convolutions, and kernels between them, but the last norm."""

    def __init__(self, path: nn.Module, dtype: torch.dtype) -> None:
        assert isinstance(path, nn.Sequential)
        self.convs = [FastConv(part, dtype) for part in path if isinstance(part, nn.Conv2d)]
        self.norms = [_Norm(part) for part in path if isinstance(part, nn.GroupNorm)]

    def __call__(self, x: Tensor) -> Tensor:  # (rows, c_from, H, W) -> (rows, c_to, H', W')
        for conv, norm in zip(self.convs[:-1], self.norms, strict=False):
            x = conv(x)
            _norm_relu(x, norm)
        return self.convs[-1](x)


class _Fusion:
    """`Fusion`: the convolutions of all paths, one kernel for their sum, one for the end."""

    def __init__(self, fusion: Fusion, dtype: torch.dtype) -> None:
        self.into = fusion.into
        self.paths = {
            source: _Path(path, dtype)
            for source, path in enumerate(fusion.paths)
            if source != self.into
        }
        last = [path.norms[-1] for path in self.paths.values()]
        self.weights = np.stack([norm.affine for norm in last])  # (S, 2, C)
        self.groups, self.eps = last[0].groups, last[0].eps
        self.conv, self.norm = FastConv(fusion.conv, dtype), _Norm(fusion.norm)

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
        sizes = tuple((path.shape[2], path.shape[3]) for path in paths)
        _kernels().fuse(
            _array(base),
            tuple(_array(path) for path in paths),
            self.weights,
            *_sources(sizes, base.shape[2], base.shape[3]),
            self.groups,
            self.eps,
            _array(total),
        )
        weight, bias = self.norm.affine
        mixed = self.conv(total)
        _kernels().norm(_array(mixed), _array(to), weight, bias, self.norm.groups, self.norm.eps)


def _norm_relu(x: Tensor, norm: _Norm) -> None:
    weight, bias = norm.affine
    _kernels().norm_relu(_array(x), weight, bias, norm.groups, norm.eps)


@lru_cache(maxsize=64)
def _sources(
    sizes: tuple[tuple[int, int], ...], height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:  # (S, height), (S, width) int64
    """Return which line and pixel of each source stands where in an image of the given size."""
    rows = np.stack([_nearest(h, height) for h, _ in sizes])
    return rows, np.stack([_nearest(w, width) for _, w in sizes])


def _nearest(count: int, wanted: int) -> np.ndarray:  # (wanted,) int64
    # PyTorch's own rounding, by asking it.
    places = torch.arange(count, dtype=torch.float32)[None, None]
    return F.interpolate(places, size=wanted, mode="nearest")[0, 0].long().numpy()
