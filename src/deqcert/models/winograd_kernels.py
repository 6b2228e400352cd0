"""The transforms of Winograd's algorithm F(4x4, 3x3), compiled by numba.

Four by four pixels of a 3x3 convolution are 36 products of the 6x6 pixels around them, brought into
another basis, instead of 144 (Lavin, Gray 2016, "Fast algorithms for convolutional neural
networks"). A tile's transform is one along lines, then one along pixels, each the values of
polynomials at 0, +-a, +-b and infinity; a^2 = 1/2 and b^2 = 2 round least of the points tried
(docs/engine.md), and pairs +-p share half of their arithmetic.

Images are (rows, H, W * C) arrays of float32 or bfloat16 bits as in `fused_kernels`, H and W
multiples of 4; tiles are (36, T, C), T = rows * H / 4 * W / 4 of them in the order of the image.
A tile is computed alone and in one order, so its bits depend on nothing else.

Along lines, numbers are many and the compiler makes vectors of them. Along pixels there are as few
as 32 channels, too few to pay for what it checks before each loop (whether twelve arrays overlap):
there, a step of 16 channels is written out in vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from deqcert.models.kernel_base import (
    CONTRACTED,
    OPTIONS,
    from_float,
    kernel,
    narrowed,
    to_float,
    widened,
)

LANES = 16
"""Channels computed at once along pixels; images have a multiple of it."""

INNER, OUTER = math.sqrt(0.5), math.sqrt(2.0)
"""The points a and b."""

_A, _B = np.float32(INNER), np.float32(OUTER)
_A3, _B3 = np.float32(INNER**3), np.float32(OUTER**3)
_HALF, _TWO = np.float32(0.5), np.float32(2.0)
_SUM = np.float32(2.5)  # a^2 + b^2; a^2 b^2 = 1


def _values(d0: Any, d1: Any, d2: Any, d3: Any, d4: Any, d5: Any) -> tuple[Any, ...]:
    """Return the transform of six pixels (B^T d)."""
    even_a, odd_a = d4 - _TWO * d2, _A * (d3 - _TWO * d1)
    even_b, odd_b = d4 - _HALF * d2, _B * (d3 - _HALF * d1)
    return (
        d0 - _SUM * d2 + d4,
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        d1 - _SUM * d3 + d5,
    )


def _pixels(m0: Any, m1: Any, m2: Any, m3: Any, m4: Any, m5: Any) -> tuple[Any, ...]:
    """Return four pixels from six products (A^T m)."""
    even_a, odd_a = m1 + m2, m1 - m2
    even_b, odd_b = m3 + m4, m3 - m4
    return (
        m0 + even_a + even_b,
        _A * odd_a + _B * odd_b,
        _HALF * even_a + _TWO * even_b,
        _A3 * odd_a + _B3 * odd_b + m5,
    )


_compiled_values, _compiled_pixels = njit(**OPTIONS)(_values), njit(**OPTIONS)(_pixels)


class _Vector:
    """A vector of float32 in a function being compiled: what the formulas above compute with."""

    def __init__(self, builder: Any, value: Any) -> None:
        self._builder, self.value = builder, value

    def __add__(self, other: _Vector) -> _Vector:
        return self._made(self._builder.fadd, self.value, other.value)

    def __sub__(self, other: _Vector) -> _Vector:
        return self._made(self._builder.fsub, self.value, other.value)

    def __rmul__(self, factor: np.float32) -> _Vector:
        factors = ir.Constant(self.value.type, [float(factor)] * LANES)
        return self._made(self._builder.fmul, factors, self.value)

    # Or NumPy would multiply it number by number.
    __array_ufunc__ = None

    def _made(self, operation: Callable[..., Any], a: Any, b: Any) -> _Vector:
        return _Vector(self._builder, operation(a, b, flags=CONTRACTED))


def _step(formula: Callable[..., tuple[Any, ...]], count: int) -> Any:
    """Return a compiled function: a formula of vectors of one array, written to another.

    It takes (source, at, apart, to, place, gap): vector i of `count` is read at
    source[at + i * apart], result i goes to to[place + i * gap]. Both arrays are contiguous and
    taken as flat; nothing is checked.
    """

    def typed(
        _context: Any, source: Any, at: Any, apart: Any, to: Any, place: Any, gap: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            formats = signature.args[0].dtype, signature.args[3].dtype
            data = [
                context.make_array(signature.args[k])(context, builder, args[k]).data
                for k in (0, 3)
            ]

            def address(which: int, first: Any, distance: Any, number: int) -> Any:
                ahead = builder.mul(distance, ir.Constant(distance.type, number))
                return builder.gep(data[which], [builder.add(first, ahead)])

            places = [address(0, args[1], args[2], k) for k in range(count)]
            results = formula(*(_Vector(builder, _load(builder, p, formats[0])) for p in places))
            for k, result in enumerate(results):
                _store(builder, address(1, args[4], args[5], k), formats[1], result.value)
            return context.get_dummy_value()

        index = types.intp
        return types.void(source, index, index, to, index, index), generate

    return intrinsic(typed)


def _vector_type(kind: Any) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if kind == types.float32 else ir.IntType(16), LANES)


def _load(builder: Any, place: Any, kind: Any) -> Any:
    pointer = builder.bitcast(place, _vector_type(kind).as_pointer())
    value = builder.load(pointer)
    value.align = kind.bitwidth // 8
    return widened(builder, value, kind)


def _store(builder: Any, place: Any, kind: Any, value: Any) -> None:
    pointer = builder.bitcast(place, _vector_type(kind).as_pointer())
    builder.store(narrowed(builder, value, kind), pointer).align = kind.bitwidth // 8


_values_of_pixels, _pixels_of_products = _step(_values, 6), _step(_pixels, 6)


@njit(**OPTIONS)
def _values_of_lines(a, b, c, d, e, f, to, start):
    """Transform six lines of an image, number by number, into the six of `to`, from `start` on."""
    stop = start + a.size
    t0, t1, t2 = to[0, start:stop], to[1, start:stop], to[2, start:stop]
    t3, t4, t5 = to[3, start:stop], to[4, start:stop], to[5, start:stop]
    for j in range(a.size):
        t0[j], t1[j], t2[j], t3[j], t4[j], t5[j] = _compiled_values(
            to_float(a[j]),
            to_float(b[j]),
            to_float(c[j]),
            to_float(d[j]),
            to_float(e[j]),
            to_float(f[j]),
        )


@njit(**OPTIONS)
def _lines_of_products(held, a, b, c, d):
    """Transform six lines, number by number, into four lines of an image."""
    m0, m1, m2, m3, m4, m5 = held[0], held[1], held[2], held[3], held[4], held[5]
    for j in range(a.size):
        p0, p1, p2, p3 = _compiled_pixels(m0[j], m1[j], m2[j], m3[j], m4[j], m5[j])
        a[j], b[j] = from_float(p0, a[j]), from_float(p1, b[j])
        c[j], d[j] = from_float(p2, c[j]), from_float(p3, d[j])


@kernel
def to_tiles(x, tiles):
    """Write the transformed tiles of images, with a border of zeros, to `tiles`.

    Args:
        x: (rows, H, W * C) contiguous, C a multiple of `LANES`.
        tiles: (36, T, C) of the same format, contiguous.
    """
    rows, height, length = x.shape
    channels, plane = tiles.shape[2], tiles.shape[1] * tiles.shape[2]
    across = length // channels // 4
    blank = np.zeros(length, x.dtype)
    held = np.zeros((6, length + 2 * channels), np.float32)  # a pixel of zeros at either end
    at = 0  # of the tile
    for row in range(rows):
        image = x[row]
        for i in range(0, height, 4):
            above = image[i - 1] if i > 0 else blank
            below = image[i + 4] if i + 4 < height else blank
            _values_of_lines(
                above, image[i], image[i + 1], image[i + 2], image[i + 3], below, held, channels
            )
            for tile in range(across):
                for k in range(6):
                    first = k * held.shape[1] + 4 * tile * channels
                    place = 6 * k * plane + at
                    for c in range(0, channels, LANES):
                        _values_of_pixels(held, first + c, channels, tiles, place + c, plane)
                at += channels


@kernel
def from_tiles(tiles, out):
    """Write the images that products of transformed tiles stand for to `out`.

    Args:
        tiles: (36, T, K) contiguous, K a multiple of `LANES`.
        out: (rows, H, W * K) contiguous, of the same format.
    """
    rows, height, length = out.shape
    channels, plane = tiles.shape[2], tiles.shape[1] * tiles.shape[2]
    across = length // channels // 4
    held = np.empty((6, length), np.float32)
    at = 0  # of the tile
    for row in range(rows):
        image = out[row]
        for i in range(0, height, 4):
            for tile in range(across):
                for k in range(6):
                    place = k * length + 4 * tile * channels
                    first = 6 * k * plane + at
                    for c in range(0, channels, LANES):
                        _pixels_of_products(tiles, first + c, plane, held, place + c, channels)
                at += channels
            _lines_of_products(held, image[i], image[i + 1], image[i + 2], image[i + 3])
