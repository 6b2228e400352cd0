"""GroupNorm of training, channels last, forward and backward, compiled by numba.

PyTorch's own channels-last GroupNorm costs more than the convolutions around it, and in the other
order those cost almost twice as much (docs/engine.md). Formats, arrays and the order of sums are
those of `fused_kernels`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from deqcert.models.fused_kernels import _fold, _normalise, _relu, _repeat
from deqcert.models.kernel_base import OPTIONS, from_float, kernel, to_float


@kernel
def norm_to(x, out, weight, bias, groups, eps, relu):
    """Write GroupNorm(x), or its positive part, to `out`.

    Args:
        x: (rows, H, W * C) contiguous.
        out: Shape and format of `x`.
        weight: (C,) float32.
        bias: (C,) float32.
        groups: Divides C.
        eps: Added to the variance.
        relu: Whether to take the positive part.
    """
    rows, height, length = x.shape
    lines = np.empty((5, length), np.float32)
    scale, offset = lines[3], lines[4]
    for row in range(rows):
        _normalise(x[row], weight, bias, groups, eps, lines, scale, offset)
        for h in range(height):
            line, to = x[row, h], out[row, h]
            if relu:
                for j in range(length):
                    to[j] = from_float(_relu(to_float(line[j]) * scale[j] + offset[j]), to[j])
            else:
                for j in range(length):
                    to[j] = from_float(to_float(line[j]) * scale[j] + offset[j], to[j])


@njit(**OPTIONS)
def _passed(gradient, normed, weight, bias, relu):
    """Return the gradient where the positive part lets it pass."""
    zero = np.float32(0.0)
    return zero if relu and normed * weight + bias <= zero else gradient


@njit(**OPTIONS)
def _sum_gradients(image, grad, lines, relu):
    """Sum the gradient, and its product with the normalised image, over the lines of a row.

    `lines` holds weight, bias, scale and offset of every number of a line; the sums go to its fifth
    and sixth line.
    """
    weight, bias, scale, offset, plain, mixed = (
        lines[0],
        lines[1],
        lines[2],
        lines[3],
        lines[4],
        lines[5],
    )
    for j in range(plain.size):
        plain[j] = np.float32(0.0)
        mixed[j] = np.float32(0.0)
    for h in range(image.shape[0]):
        line, above = image[h], grad[h]
        for j in range(plain.size):
            normed = to_float(line[j]) * scale[j] + offset[j]
            g = _passed(to_float(above[j]), normed, weight[j], bias[j], relu)
            plain[j] += g
            mixed[j] += g * normed


@kernel
def norm_back(x, grad, out, weight, bias, groups, eps, relu, sums):
    """Write the gradient of `norm_to` with respect to `x`, and add up those of weight and bias.

    With y = w n + b, n = (x - mean) r and g the gradient of y: that of x is
    r (w g - <w g> - n <w g n>), the means over the group (Wu, He 2018).

    Args:
        x: (rows, H, W * C) contiguous, what `norm_to` was given.
        grad: The gradient of its result; shape and format of `x`.
        out: Shape and format of `x`.
        weight: (C,) float32.
        bias: (C,) float32.
        groups: Divides C.
        eps: Added to the variance.
        relu: Whether `norm_to` took the positive part.
        sums: (2, C) float64, to which the gradients of weight and bias are added.
    """
    rows, height, length = x.shape
    channels = weight.size
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    lines = np.empty((8, length), np.float32)
    scratch = np.empty((3, length), np.float32)
    for c in range(channels):
        lines[0, c] = weight[c]
        lines[1, c] = bias[c]
    _repeat(lines[0], channels)
    _repeat(lines[1], channels)
    scale, offset, plain, mixed = lines[2], lines[3], lines[4], lines[5]
    mean, slope = lines[6], lines[7]
    size = channels // groups
    count = float(height * length // groups)
    for row in range(rows):
        _normalise(x[row], ones, zeros, groups, eps, scratch, scale, offset)
        _sum_gradients(x[row], grad[row], lines, relu)
        _fold(plain, channels)
        _fold(mixed, channels)
        for g in range(groups):
            first, second = 0.0, 0.0
            for c in range(g * size, (g + 1) * size):
                sums[0, c] += mixed[c]
                sums[1, c] += plain[c]
                first += weight[c] * plain[c]
                second += weight[c] * mixed[c]
            for c in range(g * size, (g + 1) * size):
                mean[c] = np.float32(first / count)
                slope[c] = np.float32(second / count)
        _repeat(mean, channels)
        _repeat(slope, channels)
        w, b = lines[0], lines[1]
        for h in range(height):
            line, above, to = x[row, h], grad[row, h], out[row, h]
            for j in range(length):
                normed = to_float(line[j]) * scale[j] + offset[j]
                g = _passed(to_float(above[j]), normed, w[j], b[j], relu)
                to[j] = from_float(scale[j] * (g * w[j] - mean[j] - normed * slope[j]), to[j])
