"""A convolution of images that lie channels last, on a GPU: one matrix product, by Triton.

A program computes a tile of (pixels of the result, channels) and sums over (line, column, channel)
of the window in one order, whatever the batch and wherever the tile: the bits of a row depend on
nothing but the row. What comes after a convolution (bias, a shortcut, the positive part, another
sum) is done while the tile is in registers, in float32, and rounded once.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["pixels", "pad"])
def conv(
    x,
    weight,
    bias,
    shortcut,
    other,
    out,
    pixels,
    pad,
    H: tl.constexpr,
    W: tl.constexpr,
    CI: tl.constexpr,
    OH: tl.constexpr,
    OW: tl.constexpr,
    CO: tl.constexpr,
    K: tl.constexpr,
    KW: tl.constexpr,
    STRIDE: tl.constexpr,
    BIAS: tl.constexpr,
    SHORTCUT: tl.constexpr,
    RELU: tl.constexpr,
    OTHER: tl.constexpr,
    PRODUCTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Write relu(conv(x) + bias + shortcut) + other to `out`, each part where it is asked for.

    Args:
        x: (rows, H, W, CI).
        weight: (K rounded up to BK, CO rounded up to BN), zeros where there is none; its lines are
            the places of a window, K = KH * KW * CI, channels innermost. Format of `x`.
        bias: (CO rounded up to BN,) float32; not read unless BIAS.
        shortcut: Shape and format of `out`; not read unless SHORTCUT.
        other: Shape and format of `out`; not read unless OTHER.
        out: (rows, OH, OW, CO), format of `x`.
        pixels: rows * OH * OW.
        pad: Lines and columns of zeros on each side of `x`. No constant: LLVM would then put two
            16-bit places into one register, and ptxas up to 13.0 drops what is added to such a
            pair in some kernels (https://github.com/triton-lang/triton/issues/11581).
        PRODUCTS: How float32 is multiplied, for `tl.dot`.
    """
    pixel = tl.program_id(0) * BM + tl.arange(0, BM)
    channel = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = pixel % (OH * OW)
    top, left = (inside // OW) * STRIDE - pad, (inside % OW) * STRIDE - pad
    row = x + (pixel // (OH * OW)).to(tl.int64) * (H * W * CI)
    wide: tl.constexpr = (CO + BN - 1) // BN * BN
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, K, BK):
        place = start + tl.arange(0, BK)
        step = place // CI
        line = top[:, None] + (step // KW)[None, :]
        column = left[:, None] + (step % KW)[None, :]
        there = (line >= 0) & (line < H) & (column >= 0) & (column < W)
        there &= (place < K)[None, :] & (pixel < pixels)[:, None]
        near = (line * W + column) * CI + (place % CI)[None, :]
        value = tl.load(row[:, None] + near, mask=there, other=0.0)
        factor = tl.load(weight + place[:, None] * wide + channel[None, :])
        total = tl.dot(value, factor, total, input_precision=PRODUCTS)
    if BIAS:
        total += tl.load(bias + channel)[None, :]
    to = pixel.to(tl.int64)[:, None] * CO + channel[None, :]
    there = (pixel < pixels)[:, None] & (channel < CO)[None, :]
    if SHORTCUT:
        total += tl.load(shortcut + to, mask=there, other=0.0).to(tl.float32)
    if RELU:
        total = tl.where(total < 0.0, 0.0, total)  # NaN stays NaN
    if OTHER:
        total += tl.load(other + to, mask=there, other=0.0).to(tl.float32)
    tl.store(out + to, total.to(out.dtype.element_ty), mask=there)


KERNELS: dict[str, Any] = {"conv": conv}
"""All of them, by name."""
