"""What stands between the convolutions of an MDEQ's stem and head, compiled by numba.

Number formats and rules are those of `fused_kernels`: images channels last, a row computed alone
and in one order, arithmetic in float32, one rounding.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from deqcert.models.kernel_base import OPTIONS, from_float, kernel, to_float


@njit(**OPTIONS)
def _relu(value):
    """Return the positive part; NaN stays NaN."""
    zero = np.float32(0.0)
    return zero if value < zero else value


@njit(**OPTIONS)
def _standardise_plane(image, mean, std, to):
    for p in range(image.size):
        to[p] = from_float((to_float(image[p]) - mean) / std, to[p])


@kernel
def standardise(x, mean, std, out):
    """Write (x - mean) / std to `out`, channels innermost.

    Args:
        x: (rows, C, P) contiguous.
        mean: (C,) float32.
        std: (C,) float32.
        out: (rows, P * C) contiguous.
    """
    rows, channels, _ = x.shape
    for row in range(rows):
        if channels == 3:  # a distance known beforehand: five times faster
            for c in range(3):
                _standardise_plane(x[row, c], mean[c], std[c], out[row, c::3])
        else:
            for c in range(channels):
                _standardise_plane(x[row, c], mean[c], std[c], out[row, c::channels])


@kernel
def end_bottleneck(x, shortcut, add, above):
    """Replace `x` by relu(x + shortcut), plus relu(above) if that is to be added.

    Args:
        x: (rows, H, W * C) contiguous.
        shortcut: Shape of `x`, other memory.
        add: Whether to add `above`; if not, it is not read.
        above: Shape of `x`, other memory.
    """
    rows, height, length = x.shape
    for row in range(rows):
        for h in range(height):
            line, other = x[row, h], shortcut[row, h]
            if add:
                more = above[row, h]
                for j in range(length):
                    total = _relu(to_float(line[j]) + to_float(other[j]))
                    line[j] = from_float(total + _relu(to_float(more[j])), line[j])
            else:
                for j in range(length):
                    line[j] = from_float(_relu(to_float(line[j]) + to_float(other[j])), line[j])


@kernel
def mean_relu(x, out):
    """Write the mean over all pixels of relu(x) to `out`.

    Args:
        x: (rows, H * W, C) contiguous.
        out: (rows, C) float32.
    """
    rows, pixels, channels = x.shape
    for row in range(rows):
        to = out[row]
        for c in range(channels):
            to[c] = np.float32(0.0)
        for p in range(pixels):
            pixel = x[row, p]
            for c in range(channels):
                to[c] += _relu(to_float(pixel[c]))
        for c in range(channels):
            to[c] /= np.float32(pixels)
