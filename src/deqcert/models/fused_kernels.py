"""GroupNorm with what surrounds it in a cell, one row at a time, compiled by numba.

Every kernel takes images channels last as (rows, H, W * C) arrays, of float32 or of bfloat16 bits
(uint16). PyTorch's own channels-last GroupNorm costs several times the convolutions around it, and
every elementwise operation beside it one more pass over memory; here a row stays in the cache from
the first pass to the last. All arithmetic is in float32, sums across channels in float64, and a
result is rounded once.

A row is computed alone and in one order, so its bits depend on nothing else.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from deqcert.models.kernel_base import OPTIONS, from_float, kernel, to_float

_UNROLLED = 4
"""Lines summed at once: column sums are loaded and stored that many times less often."""


@njit(**OPTIONS)
def _repeat(line, channels):
    """Repeat the first `channels` numbers along the line."""
    filled = channels
    while filled < line.size:
        count = min(filled, line.size - filled)
        to, source = line[filled : filled + count], line[:count]
        for j in range(count):
            to[j] = source[j]
        filled += count


@njit(**OPTIONS)
def _fold(line, channels):
    """Add up all pixels of a line, channel by channel, into its first `channels` numbers."""
    width = line.size // channels
    while width > 1:
        half = (width // 2) * channels
        low, high = line[:half], line[half : 2 * half]
        for j in range(half):
            low[j] += high[j]
        if width % 2:
            odd = line[2 * half : 2 * half + channels]
            for j in range(channels):
                low[j] += odd[j]
        width //= 2


@njit(**OPTIONS)
def _sum_columns(image, shift, sums, squares):
    """Add up every column of (H, W * C), and its squares, after subtracting `shift`."""
    for j in range(shift.size):
        sums[j] = np.float32(0.0)
        squares[j] = np.float32(0.0)
    height = image.shape[0]
    whole = height - height % _UNROLLED
    for h in range(0, whole, _UNROLLED):
        a, b, c, d = image[h], image[h + 1], image[h + 2], image[h + 3]
        for j in range(shift.size):
            s = shift[j]
            p, q = to_float(a[j]) - s, to_float(b[j]) - s
            r, t = to_float(c[j]) - s, to_float(d[j]) - s
            sums[j] += (p + q) + (r + t)
            squares[j] += (p * p + q * q) + (r * r + t * t)
    for h in range(whole, height):
        line = image[h]
        for j in range(shift.size):
            p = to_float(line[j]) - shift[j]
            sums[j] += p
            squares[j] += p * p


@njit(**OPTIONS)
def _normalise(image, weight, bias, groups, eps, lines, scale, offset):
    """Find GroupNorm of (H, W * C) as x * scale + offset, both written as lines of W * C numbers.

    `lines` is scratch space of 3 lines. One pass: numbers are taken relative to one of their own
    group, so that a large mean costs the variance no digits.
    """
    channels, length = weight.size, image.shape[1]
    shift, sums, squares = lines[0, :length], lines[1, :length], lines[2, :length]
    size = channels // groups
    for g in range(groups):
        for c in range(g * size, (g + 1) * size):
            shift[c] = to_float(image[0, g * size])
    _repeat(shift, channels)
    _sum_columns(image, shift, sums, squares)
    _fold(sums, channels)
    _fold(squares, channels)
    count = float(image.size // groups)
    for g in range(groups):
        total, square = 0.0, 0.0
        for c in range(g * size, (g + 1) * size):
            total += sums[c]
            square += squares[c]
        mean = total / count
        variance = square / count - mean * mean
        # Written so that NaN stays NaN.
        inverse = 1.0 / math.sqrt(eps + (np.float64(0.0) if variance < 0.0 else variance))
        mean += shift[g * size]
        for c in range(g * size, (g + 1) * size):
            scale[c] = np.float32(weight[c] * inverse)
            offset[c] = np.float32(bias[c] - mean * inverse * weight[c])
    _repeat(scale, channels)
    _repeat(offset, channels)


@njit(**OPTIONS)
def _relu(value):
    """Return the positive part; NaN stays NaN."""
    zero = np.float32(0.0)
    return zero if value < zero else value


@kernel
def norm_relu(x, weight, bias, groups, eps):
    """Replace `x` by relu(GroupNorm(x)).

    Args:
        x: (rows, H, W * C) contiguous.
        weight: (C,) float32.
        bias: (C,) float32.
        groups: Divides C.
        eps: Added to the variance.
    """
    rows, height, length = x.shape
    lines = np.empty((5, length), np.float32)
    scale, offset = lines[3], lines[4]
    for row in range(rows):
        image = x[row]
        _normalise(image, weight, bias, groups, eps, lines, scale, offset)
        for h in range(height):
            line = image[h]
            for j in range(length):
                line[j] = from_float(_relu(to_float(line[j]) * scale[j] + offset[j]), line[j])


@kernel
def norm(x, out, weight, bias, groups, eps):
    """Write GroupNorm(x) to `out`, of the same shape and format but other memory."""
    rows, height, length = x.shape
    lines = np.empty((5, length), np.float32)
    scale, offset = lines[3], lines[4]
    for row in range(rows):
        image = x[row]
        _normalise(image, weight, bias, groups, eps, lines, scale, offset)
        for h in range(height):
            line, to = image[h], out[row, h]
            for j in range(length):
                to[j] = from_float(to_float(line[j]) * scale[j] + offset[j], to[j])


@kernel
def end_block(x, add, injection, z, first, second, groups, eps):
    """Replace `x` by GroupNorm2(relu(GroupNorm1(x + injection) + z)).

    Args:
        x: (rows, H, W * C) contiguous.
        add: Whether there is an injection; if not, `injection` is not read.
        injection: Shape of `x`.
        z: Shape of `x`.
        first: (2, C) float32, weight and bias of the first normalisation.
        second: (2, C) float32, those of the second.
        groups: Divides C.
        eps: Added to the variances.
    """
    rows, height, length = x.shape
    lines = np.empty((5, length), np.float32)
    scale, offset = lines[3], lines[4]
    held = np.empty((height, length), np.float32)
    for row in range(rows):
        for h in range(height):
            to, line, more = held[h], x[row, h], injection[row, h]
            if add:
                for j in range(length):
                    to[j] = to_float(line[j]) + to_float(more[j])
            else:
                for j in range(length):
                    to[j] = to_float(line[j])
        _normalise(held, first[0], first[1], groups, eps, lines, scale, offset)
        for h in range(height):
            to, line = held[h], z[row, h]
            for j in range(length):
                to[j] = _relu(to[j] * scale[j] + offset[j] + to_float(line[j]))
        _normalise(held, second[0], second[1], groups, eps, lines, scale, offset)
        for h in range(height):
            line, to = held[h], x[row, h]
            for j in range(length):
                to[j] = from_float(line[j] * scale[j] + offset[j], to[j])


@njit(**OPTIONS)
def _spread(line, scale, offset, columns, channels, normed, to):
    """Write x * scale + offset to `to`, pixel w taken from pixel columns[w] of the line."""
    if line.size == to.size:
        for j in range(line.size):
            to[j] = to_float(line[j]) * scale[j] + offset[j]
        return
    for j in range(line.size):
        normed[j] = to_float(line[j]) * scale[j] + offset[j]
    for w in range(columns.size):
        pixel, source = to[w * channels : (w + 1) * channels], columns[w] * channels
        here = normed[source : source + channels]
        for c in range(channels):
            pixel[c] = here[c]


@kernel
def fuse(base, sources, weights, rows_of, columns_of, groups, eps, out):
    """Write relu(base + sum of the GroupNorms of `sources`, each enlarged) to `out`.

    Args:
        base: (rows, H, W * C) contiguous.
        sources: Tuple of S arrays (rows, H_s, W_s * C) contiguous.
        weights: (S, 2, C) float32, weight and bias of each normalisation.
        rows_of: (S, H) int64, the line of a source that stands at each line of the result.
        columns_of: (S, W) int64, the same of its pixels.
        groups: Divides C.
        eps: Added to the variances.
        out: Shape of `base`.
    """
    rows, height, length = base.shape
    channels = weights.shape[2]
    longest = length
    for s in range(len(sources)):
        longest = max(longest, sources[s].shape[2])
    lines = np.empty((4, longest), np.float32)
    affine = np.empty((len(sources), 2, longest), np.float32)
    spread = np.empty((len(sources), length), np.float32)
    total = np.empty(length, np.float32)
    for row in range(rows):
        for s in range(len(sources)):
            image = sources[s][row]
            size = image.shape[1]
            scale, offset = affine[s, 0, :size], affine[s, 1, :size]
            _normalise(image, weights[s, 0], weights[s, 1], groups, eps, lines, scale, offset)
        for h in range(height):
            line, to = base[row, h], out[row, h]
            for j in range(length):
                total[j] = to_float(line[j])
            for s in range(len(sources)):
                at = rows_of[s, h]
                here = spread[s]
                if h == 0 or at != rows_of[s, h - 1]:
                    image = sources[s][row]
                    size = image.shape[1]
                    scale, offset = affine[s, 0, :size], affine[s, 1, :size]
                    columns = columns_of[s]
                    _spread(image[at], scale, offset, columns, channels, lines[3], here)
                for j in range(length):
                    total[j] += here[j]
            for j in range(length):
                to[j] = from_float(_relu(total[j]), to[j])
