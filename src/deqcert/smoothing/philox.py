"""Philox4x32-10 and Box-Muller by PyTorch's own operations, on whatever device they run.

Counter-based: a number follows from its key and its counter, whatever is made beside it (Salmon,
Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3",
doi:10.1145/2063384.2063405).
Nothing here waits for the device: constants are arguments of the kernels, not tensors to copy.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

ROUNDS = 10
WORD = 2**32
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0 if sys.byteorder == "little" else 1

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox4x32(
    groups: Tensor,  # (G,) int64 in [0, 2^32)
    draws: Tensor,  # (R,) int64 in [0, 2^32)
    tail: tuple[int, int],
    key: tuple[int, int],
) -> Words:  # each (R, G) int32
    """Return the four words at the counters (group, draw, *tail), as signed 32-bit numbers.

    The two products of a round are 64-bit integers that wrap around; their halves are read as views
    of 32-bit numbers, so that a round is four operations without a shift or a mask.

    Args:
        groups: First word of the counters.
        draws: Second word of the counters.
        tail: Third and fourth word of the counters.
        key: The two words of the key.
    """
    shape = (2, len(draws), len(groups))
    factor = torch.zeros(shape, dtype=torch.int64, device=groups.device)
    factor[0], factor[1] = groups, tail[0]
    product, before = torch.empty_like(factor), torch.empty_like(factor)
    before[0], before[1] = tail[1], draws[:, None]
    multiplier = factor.new_full((2, 1, 1), _MULTIPLIERS[0])
    multiplier[1] = _MULTIPLIERS[1]
    words, _ = _halves(factor)  # the high halves are zero and stay so
    (low, high), (low_before, high_before) = _halves(product), _halves(before)
    for number in range(ROUNDS):
        torch.mul(factor, multiplier, out=product)
        high.bitwise_xor_(low_before)
        for place, (first, step) in enumerate(zip(key, _WEYL, strict=True)):
            torch.bitwise_xor(high[1 - place], _signed(first + number * step), out=words[place])
        product, before = before, product
        low, high, low_before, high_before = low_before, high_before, low, high
    return words[0], low_before[1], words[1], low_before[0]


def normals(words: Words) -> Tensor:  # words: (R, G) each -> (R, 4, G) float32
    """Return four standard normals for four words, by the method of Box and Muller (1958).

    Words w, v (first and second, third and fourth; read as signed) give sqrt(-2 log u) cos(a) and
    sqrt(-2 log u) sin(a), with u = (w + 2^31 + 1/2) / 2^32 and a = 2 pi (v + 1/2) / 2^32, in order
    of the output: both cosines, both sines. All in float64, rounded to float32 once.

    What the grids of u and a do: |z| is at most sqrt(66 log 2) = 6.764, which a normal number
    passes with probability 1.4e-11, and never zero. Radii are 2^32 values, 1.1e-5 apart at the
    smallest and 0.16 at the largest. The cdf of a number is within 1.5 / 2^32 of the normal one:
    at each angle {z <= t} is a half-line in u, which the grid measures up to half a cell, and at
    each u an arc, measured up to one. Rounding to float32 keeps the order, so it adds nothing
    beside a normal number that is rounded as well. cuRAND, which makes PyTorch's normals on GPUs,
    has the same grids.
    """
    first, second, third, fourth = words
    radius = _doubles(first, third).add_(WORD / 2 + 0.5).mul_(1.0 / WORD)
    radius.log_().mul_(-2.0).sqrt_()
    angle = _doubles(second, fourth).add_(0.5).mul_(2.0 * math.pi / WORD)
    rows, groups = first.shape
    out = torch.empty(rows, 4, groups, dtype=torch.float32, device=first.device)
    out[:, :2] = torch.cos(angle).mul_(radius).transpose(0, 1)
    out[:, 2:] = angle.sin_().mul_(radius).transpose(0, 1)
    return out


def _doubles(one: Tensor, other: Tensor) -> Tensor:  # (R, G) each -> (2, R, G) float64
    pair = torch.empty(2, *one.shape, dtype=torch.float64, device=one.device)
    pair[0], pair[1] = one, other
    return pair


def _halves(numbers: Tensor) -> tuple[Tensor, Tensor]:  # (..., G) int64 -> views (..., G) int32
    """Return the low and the high halves."""
    halves = numbers.view(torch.int32).unflatten(-1, (-1, 2))
    return halves[..., _LOW], halves[..., 1 - _LOW]


def _signed(word: int) -> int:
    """Return the low 32 bits as a signed number."""
    return (word + WORD // 2) % WORD - WORD // 2
