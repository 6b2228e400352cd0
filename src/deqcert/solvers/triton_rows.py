"""Passes over the rows of a state on a GPU: the siblings of `row_kernels`, by Triton.

Rows are contiguous, in float32 or bfloat16; all sums are taken in float32 or wider, and what is
written is rounded once. One program sums a row by itself: in lanes, from its start to its end, then
over the lanes in one tree. So the bits of a row depend on nothing but its width and its numbers.

Sizes that decide the order of a sum are compile-time constants. Numbers that vary from call to call
are not specialised: Triton would make other machine code where they are 1 or multiples of 16.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def _read(x, place, there):
    """Return numbers in float32, zeros where there are none."""
    return tl.load(x + place, mask=there, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["slots", "apart", "slot", "rows"])
def dots(
    window,
    out,
    slots,
    apart,
    slot,
    rows,
    W: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the products of each row of one slot with the matching row of every slot.

    Args:
        window: Rows of W numbers, those of slot p from row p * apart on.
        out: (slots, rows) float64.
        slots: GROUP of them per program along axis 1.
        apart: Rows from one slot to the next.
        slot: The one.
        rows: How many each slot has; programs along axis 0.
    """
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * GROUP + tl.arange(0, GROUP)
    newest = window + (row + slot * apart) * W
    others = (row + place * apart)[:, None] * W
    total = tl.zeros((GROUP, BLOCK), tl.float32)
    for start in range(0, W, BLOCK):
        number = start + tl.arange(0, BLOCK)[None, :]
        inside = number < W
        other = _read(window, others + number, (place < slots)[:, None] & inside)
        total += _read(newest, number, inside) * other
    tl.store(out + place * rows + row, tl.sum(total, axis=1).to(tl.float64), mask=place < slots)


@triton.jit(do_not_specialize=["rows"])
def changes(x, y, out, rows, W: tl.constexpr, BLOCK: tl.constexpr):
    """Write ||y - x||^2 and ||y||^2 of matching rows.

    Args:
        x: (rows, W).
        y: (rows, W).
        out: (2, rows) float64.
        rows: One program each.
    """
    row = tl.program_id(0).to(tl.int64)
    x, y = x + row * W, y + row * W
    change, size = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, W, BLOCK):
        number = start + tl.arange(0, BLOCK)
        value = _read(y, number, number < W)
        difference = value - _read(x, number, number < W)
        change += difference * difference
        size += value * value
    tl.store(out + row, tl.sum(change, axis=0).to(tl.float64))
    tl.store(out + rows + row, tl.sum(size, axis=0).to(tl.float64))


@triton.jit
def _part(share, x, place, there):
    return tl.load(share) * _read(x, place, there)


@triton.jit(do_not_specialize=["rows"])
def combine(
    shares,
    x0,
    x1,
    x2,
    x3,
    x4,
    x5,
    x6,
    x7,
    out,
    rows,
    width,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the weighted sums of matching rows, added up in the order of the points.

    Nothing is summed across a row, so that its width need be no constant.

    Args:
        shares: (P, rows) float32.
        x0: The first point, (rows, width); the others alike, not read from the P-th on.
        x1: See `x0`.
        x2: See `x0`.
        x3: See `x0`.
        x4: See `x0`.
        x5: See `x0`.
        x6: See `x0`.
        x7: See `x0`.
        out: Shape and format of the points; none of them.
        rows: Programs along axis 0.
        width: BLOCK numbers of it per program along axis 1.
    """
    row = tl.program_id(0).to(tl.int64)
    number = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place, there = row * width + number, number < width
    share = shares + row
    total = _part(share, x0, place, there)
    if P > 1:
        total += _part(share + rows, x1, place, there)
    if P > 2:
        total += _part(share + 2 * rows, x2, place, there)
    if P > 3:
        total += _part(share + 3 * rows, x3, place, there)
    if P > 4:
        total += _part(share + 4 * rows, x4, place, there)
    if P > 5:
        total += _part(share + 5 * rows, x5, place, there)
    if P > 6:
        total += _part(share + 6 * rows, x6, place, there)
    if P > 7:
        total += _part(share + 7 * rows, x7, place, there)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=there)


@triton.jit
def _line(values, those) -> Any:
    """Add up what a mask leaves of a tile along axis 0: one line of it, say."""
    return tl.sum(tl.where(those, values, 0.0), axis=0)


@triton.jit
def _column(values, those) -> Any:
    """Add up what a mask leaves of a tile along axis 1: one column."""
    return tl.sum(tl.where(those, values, 0.0), axis=1)


@triton.jit(do_not_specialize=["rows"])
def eliminate(
    gram,
    out,
    rows,
    RIDGE: tl.constexpr,
    EPS: tl.constexpr,
    P: tl.constexpr,
    BP: tl.constexpr,
    LANES: tl.constexpr,
):
    """Write the solutions of (gram + ridge I) a ~ 1, scaled to sum 1, by the rules of the CPU.

    One warp solves a system per thread, all in registers: picking a line or column of a tile is
    done when it is compiled. (A ridge that is no constant would arrive in float32.)

    Args:
        gram: (P, P, rows) float64.
        out: (P, rows) float64.
        rows: LANES of them per program.
    """
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    there = lane < rows
    i, k = tl.arange(0, BP)[:, None, None], tl.arange(0, BP)[None, :, None]
    place = tl.arange(0, BP)[:, None]
    entry = (i * P + k) * rows + lane[None, None, :]
    fits = (i < P) & (k < P) & there[None, None, :]
    system = tl.load(gram + entry, mask=fits, other=0.0)
    vanished = tl.load(gram + lane, mask=there, other=1.0) == 0.0
    system = tl.where(i == k, system + tl.full((1, 1, 1), RIDGE, tl.float64), system)
    smallest = _column(system, i == k) * (8.0 * EPS)
    right = tl.full((BP, LANES), 1.0, tl.float64)
    inverses = tl.zeros((BP, LANES), tl.float64)
    for j in tl.static_range(P):  # pyright: ignore[reportGeneralTypeIssues]
        line, column = _line(system, i == j), _column(system, k == j)
        pivot = _line(column, place == j)
        # 1 / NaN passes, so that a row with NaN shows it.
        inverse = tl.where(pivot <= _line(smallest, place == j), 0.0, 1.0 / pivot)
        factor = column * inverse[None, :]
        inverses = tl.where(place == j, inverse[None, :], inverses)
        right = tl.where(place == j, right, right - factor * _line(right, place == j)[None, :])
        system = tl.where(i == j, system, system - factor[:, None, :] * line[None, :, :])
    weight = tl.where(place < P, right * inverses, 0.0)
    weight = weight / _line(weight, place < P)[None, :]
    alone = tl.where(place == 0, 1.0, 0.0)
    weight = tl.where(vanished[None, :], alone, weight)
    tl.store(out + place * rows + lane[None, :], weight, mask=(place < P) & there[None, :])


KERNELS: dict[str, Any] = {
    "dots": dots,
    "changes": changes,
    "combine": combine,
    "eliminate": eliminate,
}
"""All of them, by name."""
