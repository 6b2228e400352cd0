"""What the kernels of models share: how they are compiled, and the two number formats.

Only `to_float` and `from_float` know the formats: float32, and bfloat16 as its bits (uint16), which
are the upper half of a float32. Numba's cache on disk notices changes of a kernel's own file alone:
after a change here, delete the `__pycache__` of the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# Contraction: a product and a sum may be one operation. Sums are never reordered, so that a
# machine always gives the same bits.
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": {"contract", "nsz"},
    "error_model": "numpy",
}
CONTRACTED = ("contract", "nsz")
"""The same for an operation that is written out."""


def kernel(function: Callable[..., None]) -> Any:
    """Compile at the first call, and keep the machine code on disk where a folder is writable."""
    try:
        return njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # numba found no folder to write to
        return njit(**OPTIONS)(function)


def widened(builder: Any, value: Any, kind: Any) -> Any:
    """Write out: float32 from float32, or from the bits of bfloat16, which are its upper half."""
    if kind == types.float32:
        return value
    words, floats = _like(value, ir.IntType(32)), _like(value, ir.FloatType())
    bits = builder.shl(builder.zext(value, words), _constant(words, 16))
    return builder.bitcast(bits, floats)


def narrowed(builder: Any, value: Any, kind: Any) -> Any:
    """Write out: a float32 in another format; to bfloat16 by rounding to the nearest even."""
    if kind == types.float32:
        return value
    words, halves = _like(value, ir.IntType(32)), _like(value, ir.IntType(16))
    bits = builder.bitcast(value, words)
    upper = builder.lshr(bits, _constant(words, 16))
    odd = builder.and_(upper, _constant(words, 1))
    bits = builder.add(bits, builder.add(odd, _constant(words, 0x7FFF)))
    rounded = builder.lshr(bits, _constant(words, 16))
    nan = builder.fcmp_unordered("uno", value, value)
    rounded = builder.select(nan, _constant(words, 0x7FC0), rounded)
    return builder.trunc(rounded, halves)


def _like(value: Any, element: Any) -> Any:
    """Return the type of `element`, or of as many of it as `value` has."""
    vector = isinstance(value.type, ir.VectorType)
    return ir.VectorType(element, value.type.count) if vector else element


def _constant(kind: Any, value: int) -> Any:
    vector = isinstance(kind, ir.VectorType)
    return ir.Constant(kind, [value] * kind.count if vector else value)


def _widening(context: Any, value: Any) -> Any:
    """Return a float32, from one or from the bits of a bfloat16."""
    del context

    def widen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return widened(builder, args[0], value)

    return (types.float32(value), widen) if value in (types.float32, types.uint16) else None


to_float: Any = intrinsic(_widening)


def _narrowing(context: Any, value: Any, like: Any) -> Any:
    """Return a float32 in the format of `like`."""
    del context, value

    def narrow(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return narrowed(builder, args[0], like)

    return (like(types.float32, like), narrow) if like in (types.float32, types.uint16) else None


from_float: Any = intrinsic(_narrowing)
