"""GroupNorm with what surrounds it in a cell, on a GPU: the siblings of `fused_kernels`, by Triton.

Images lie channels last, (rows, pixels, channels) contiguous, in float32 or bfloat16. One program
computes some whole groups of channels of one row by itself: in tiles of (pixels, groups, channels
of a group) whose sizes follow from the shape of an image alone. So no sum depends on the batch, on
other programs, or on which of them was first. All arithmetic is in float32, and a result is rounded
once. Sums never leave the chip; what is read a second time comes from a cache.

Sizes are compile-time constants: P pixels, C channels, G groups; BP, BG and BC are those of a tile,
powers of two.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def _channels(C: tl.constexpr, G: tl.constexpr, BG: tl.constexpr, BC: tl.constexpr):
    """Return the channels of this program's groups, and which of them there are: (BG, BC)."""
    size: tl.constexpr = C // G
    group = tl.program_id(1) * BG + tl.arange(0, BG)[:, None]
    inside = tl.arange(0, BC)[None, :]
    return group * size + inside, (group < G) & (inside < size)


@triton.jit
def _places(start, channel, fits, P: tl.constexpr, C: tl.constexpr, BP: tl.constexpr):
    """Return where the numbers of a tile lie in a row, and which of them there are."""
    pixel = start + tl.arange(0, BP)[:, None, None]
    return pixel * C + channel[None, :, :], (pixel < P) & fits[None, :, :]


@triton.jit
def _read(x, place, there):
    """Return numbers in float32, zeros where there are none."""
    return tl.load(x + place, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _write(x, place, there, value):
    tl.store(x + place, value.to(x.dtype.element_ty), mask=there)


@triton.jit
def _relu(value):
    """Return the positive part; NaN stays NaN."""
    return tl.where(value < 0.0, 0.0, value)


@triton.jit
def _total(value):
    """Add up a tile group by group: (BP, BG, BC) -> (BG,)."""
    return tl.sum(tl.sum(value, axis=2), axis=0)


@triton.jit
def _center(value, P: tl.constexpr, SIZE: tl.constexpr, BP: tl.constexpr):
    """Return the mean of the first tile of each group, (1, BG, 1): what distances are taken from.

    So a large mean costs the variance no digits, and nothing is summed across threads until all
    tiles have been read.
    """
    return tl.div_rn(_total(value), min(P, BP) * SIZE * 1.0)[None, :, None]


@triton.jit
def _moments(away, squares, center, COUNT: tl.constexpr):
    """Return the mean and the sum of squared distances from it of each group, (BG,).

    From the sums of distances from a center near it, place by place (BP, BG, BC), and of squares.
    """
    apart = tl.div_rn(_total(away), COUNT * 1.0)
    spread = _total(squares) - apart * apart * COUNT
    # NaN stays NaN.
    return tl.reshape(center, apart.shape) + apart, tl.where(spread < 0.0, 0.0, spread)


@triton.jit
def _line(mean, spread, affine, channel, fits, eps, COUNT: tl.constexpr, C: tl.constexpr):
    """Return mean, scale and offset, each (1, BG, BC): a norm is (x - mean) * scale + offset."""
    inverse = tl.div_rn(1.0, tl.sqrt_rn(tl.div_rn(spread, COUNT * 1.0) + eps))
    weight = tl.load(affine + channel, mask=fits, other=0.0)
    bias = tl.load(affine + C + channel, mask=fits, other=0.0)
    return mean[None, :, None], (weight * inverse[:, None])[None, :, :], bias[None, :, :]


@triton.jit
def _line_of(
    x,
    affine,
    channel,
    fits,
    eps,
    P: tl.constexpr,
    C: tl.constexpr,
    G: tl.constexpr,
    BP: tl.constexpr,
    BG: tl.constexpr,
    BC: tl.constexpr,
):
    """Return what `_line` does, for the groups of an image as it lies in memory."""
    size: tl.constexpr = C // G
    place, there = _places(0, channel, fits, P, C, BP)
    center = _center(_read(x, place, there), P, size, BP)
    away, squares = tl.zeros((BP, BG, BC), tl.float32), tl.zeros((BP, BG, BC), tl.float32)
    for start in range(0, P, BP):
        place, there = _places(start, channel, fits, P, C, BP)
        distance = tl.where(there, _read(x, place, there) - center, 0.0)
        away += distance
        squares += distance * distance
    mean, spread = _moments(away, squares, center, P * size)
    return _line(mean, spread, affine, channel, fits, eps, P * size, C)


@triton.jit
def norm(
    x,
    out,
    affine,
    eps,
    P: tl.constexpr,
    C: tl.constexpr,
    G: tl.constexpr,
    RELU: tl.constexpr,
    BP: tl.constexpr,
    BG: tl.constexpr,
    BC: tl.constexpr,
):
    """Write GroupNorm(x), or its positive part, to `out`, which may be `x`.

    Args:
        x: (rows, P, C).
        out: Shape and format of `x`.
        affine: (2, C) float32, weight and bias.
        eps: Added to the variance.
    """
    row = tl.program_id(0).to(tl.int64) * (P * C)
    channel, fits = _channels(C, G, BG, BC)
    mean, scale, offset = _line_of(x + row, affine, channel, fits, eps, P, C, G, BP, BG, BC)
    for start in range(0, P, BP):
        place, there = _places(start, channel, fits, P, C, BP)
        value = (_read(x + row, place, there) - mean) * scale + offset
        if RELU:
            value = _relu(value)
        _write(out + row, place, there, value)


@triton.jit
def _sum(x, injection, place, there, ADD: tl.constexpr):
    value = _read(x, place, there)
    if ADD:
        value += _read(injection, place, there)
    return value


@triton.jit
def _inside(x, injection, z, place, there, line, ADD: tl.constexpr):
    """Return relu(GroupNorm1(x + injection) + z); of nothing it is nothing."""
    mean, scale, offset = line
    value = (_sum(x, injection, place, there, ADD) - mean) * scale + offset
    return tl.where(there, _relu(value + _read(z, place, there)), 0.0)


@triton.jit
def end_block(
    x,
    injection,
    z,
    first,
    second,
    eps,
    P: tl.constexpr,
    C: tl.constexpr,
    G: tl.constexpr,
    ADD: tl.constexpr,
    BP: tl.constexpr,
    BG: tl.constexpr,
    BC: tl.constexpr,
):
    """Replace `x` by GroupNorm2(relu(GroupNorm1(x + injection) + z)).

    What stands inside is made a second time instead of kept: it would not fit into registers for
    large images, and the second reading comes from a cache.

    Args:
        x: (rows, P, C).
        injection: Shape and format of `x`; not read unless ADD.
        z: Shape and format of `x`.
        first: (2, C) float32, weight and bias of the first normalisation.
        second: (2, C) float32, those of the second.
        eps: Added to the variances.
    """
    row = tl.program_id(0).to(tl.int64) * (P * C)
    x, injection, z = x + row, injection + row, z + row
    size: tl.constexpr = C // G
    channel, fits = _channels(C, G, BG, BC)
    place, there = _places(0, channel, fits, P, C, BP)
    center = _center(_sum(x, injection, place, there, ADD), P, size, BP)
    away, squares = tl.zeros((BP, BG, BC), tl.float32), tl.zeros((BP, BG, BC), tl.float32)
    for start in range(0, P, BP):
        place, there = _places(start, channel, fits, P, C, BP)
        distance = tl.where(there, _sum(x, injection, place, there, ADD) - center, 0.0)
        away += distance
        squares += distance * distance
    mean, spread = _moments(away, squares, center, P * size)
    line = _line(mean, spread, first, channel, fits, eps, P * size, C)
    place, there = _places(0, channel, fits, P, C, BP)
    center = _center(_inside(x, injection, z, place, there, line, ADD), P, size, BP)
    away, squares = tl.zeros((BP, BG, BC), tl.float32), tl.zeros((BP, BG, BC), tl.float32)
    for start in range(0, P, BP):
        place, there = _places(start, channel, fits, P, C, BP)
        value = _inside(x, injection, z, place, there, line, ADD)
        distance = tl.where(there, value - center, 0.0)
        away += distance
        squares += distance * distance
    mean, spread = _moments(away, squares, center, P * size)
    mean, scale, offset = _line(mean, spread, second, channel, fits, eps, P * size, C)
    for start in range(0, P, BP):
        place, there = _places(start, channel, fits, P, C, BP)
        value = _inside(x, injection, z, place, there, line, ADD)
        _write(x, place, there, (value - mean) * scale + offset)


@triton.jit
def _enlarged(
    x, places, start, channel, fits, line, P: tl.constexpr, C: tl.constexpr, BP: tl.constexpr
):
    """Return the norm of an image at the pixels that stand at those of a tile."""
    mean, scale, offset = line
    pixel = start + tl.arange(0, BP)
    source = tl.load(places + pixel, mask=pixel < P, other=0)[:, None, None]
    there = (pixel < P)[:, None, None] & fits[None, :, :]
    value = _read(x, source * C + channel[None, :, :], there)
    return (value - mean) * scale + offset


@triton.jit
def fuse(
    base,
    x0,
    x1,
    x2,
    places0,
    places1,
    places2,
    affine,
    out,
    eps,
    S: tl.constexpr,
    P: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    C: tl.constexpr,
    G: tl.constexpr,
    BP: tl.constexpr,
    BG: tl.constexpr,
    BC: tl.constexpr,
):
    """Write relu(base + sum of the GroupNorms of S images, each enlarged) to `out`.

    Args:
        base: (rows, P, C).
        x0: (rows, P0, C); x1 and x2 alike, not read from the S-th on.
        x1: See `x0`.
        x2: See `x0`.
        places0: (P,) int32, which pixel of `x0` stands at each pixel of the result.
        places1: The same of `x1`.
        places2: The same of `x2`.
        affine: (S, 2, C) float32, weight and bias of each normalisation.
        out: Shape and format of `base`.
        eps: Added to the variances.
    """
    number = tl.program_id(0).to(tl.int64)
    row = number * (P * C)
    x0, x1, x2 = x0 + number * (P0 * C), x1 + number * (P1 * C), x2 + number * (P2 * C)
    channel, fits = _channels(C, G, BG, BC)
    line0 = _line_of(x0, affine, channel, fits, eps, P0, C, G, BP, BG, BC)
    line1, line2 = line0, line0
    if S > 1:
        line1 = _line_of(x1, affine + 2 * C, channel, fits, eps, P1, C, G, BP, BG, BC)
    if S > 2:
        line2 = _line_of(x2, affine + 4 * C, channel, fits, eps, P2, C, G, BP, BG, BC)
    for start in range(0, P, BP):
        place, there = _places(start, channel, fits, P, C, BP)
        total = _read(base + row, place, there)
        total += _enlarged(x0, places0, start, channel, fits, line0, P, C, BP)
        if S > 1:
            total += _enlarged(x1, places1, start, channel, fits, line1, P, C, BP)
        if S > 2:
            total += _enlarged(x2, places2, start, channel, fits, line2, P, C, BP)
        _write(out + row, place, there, _relu(total))


KERNELS: dict[str, Any] = {"norm": norm, "end_block": end_block, "fuse": fuse}
"""All of them, by name."""
