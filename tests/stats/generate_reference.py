"""Reference values for the statistics, by exact integers and 50-digit arithmetic.

Run ``python tests/stats/generate_reference.py`` to write ``reference.json`` beside this file. It
imports nothing of the package and uses none of its formulas: binomial and hypergeometric
probabilities are sums of integers, bounds come from their definitions by bisection.
"""

from __future__ import annotations

import json
from fractions import Fraction
from math import comb
from pathlib import Path

from mpmath import mp, mpf

mp.dps = 50
BITS = 120  # bisection steps


def binomial_upper_tail(k: int, n: int, p: mpf) -> mpf:
    """P(Bin(n, p) >= k): the sum of terms away from the mode, until they no longer matter."""
    if k == 0:
        return mpf(1)
    if k > n * p:
        return _sum(k, n, p, step=1)
    return 1 - _sum(k - 1, n, p, step=-1)


def _sum(j: int, n: int, p: mpf, *, step: int) -> mpf:
    odds = p / (1 - p)
    term = mp.exp(mp.log(comb(n, j)) + j * mp.log(p) + (n - j) * mp.log(1 - p))
    total = mpf(0)
    while term > total * mpf(10) ** -45:
        total += term
        if j == (n if step > 0 else 0):
            break
        term *= odds * (n - j) / (j + 1) if step > 0 else j / (odds * (n - j + 1))
        j += step
    return total


def largest(holds, low: mpf, high: mpf) -> mpf:
    """The end of the interval from `low` on which `holds`."""
    for _ in range(BITS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def clopper_pearson_lower(k: int, n: int, alpha: mpf) -> mpf:
    if k == 0:
        return mpf(0)
    return largest(lambda p: binomial_upper_tail(k, n, p) <= alpha, mpf(0), mpf(1))


def hypergeometric_cdf(m: int, population: int, bad: int, drawn: int) -> Fraction:
    ways = sum(comb(bad, j) * comb(population - bad, drawn - j) for j in range(m + 1))
    return Fraction(ways, comb(population, drawn))


def disagreements_upper(population: int, drawn: int, m: int, alpha: float) -> int:
    low, high = m, population - drawn + m
    while low < high:
        middle = (low + high + 1) // 2
        inside = hypergeometric_cdf(m, population, middle, drawn) > Fraction(alpha)
        low, high = (middle, high) if inside else (low, middle - 1)
    return low


def quantile(p: mpf) -> mpf:
    """Phi^-1(p), by bisection on the cdf."""
    return largest(lambda z: mp.ncdf(z) <= p, mpf(-40), mpf(40))


def in_region(u1: mpf, u2: mpf, alpha: mpf, weight: mpf, strip: mpf, threshold: mpf) -> bool:
    if u1 <= strip * alpha or u2 <= strip * alpha:
        return True
    if u1 == 1 or u2 == 1:
        return False
    z1, z2 = -quantile(u1), -quantile(u2)
    return weight * z1 + mp.sqrt(1 - weight**2) * z2 >= threshold


def theorem_a_joint_lower(count, n, drawn, m, alpha, weight, strip) -> mpf:
    """sup{p0 : (u1, u2) in D for every M}, straight from the definition (THEORY 3, Theorem A')."""
    alpha, weight, strip = mpf(alpha), mpf(weight), mpf(strip)
    threshold = -quantile((1 - 2 * strip) * alpha)
    heights = []
    for bad in range(m, count - drawn + m + 1):
        exact = hypergeometric_cdf(m, count, bad, drawn)
        heights.append((bad, mpf(exact.numerator) / exact.denominator))

    def accepted(p0: mpf) -> bool:
        return all(
            in_region(binomial_upper_tail(count - bad, n, p0), u2, alpha, weight, strip, threshold)
            for bad, u2 in heights
        )

    low, high = mpf(0), mpf(1)
    for _ in range(46):  # to 1e-14: each step is a full sweep
        middle = (low + high) / 2
        low, high = (middle, high) if accepted(middle) else (low, middle)
    return low


def main() -> None:
    lower = [
        (k, n, alpha)
        for n, counts in {
            1: (0, 1),
            10: (0, 3, 9, 10),
            100: (1, 50, 99, 100),
            10_000: (1, 5_100, 7_000, 9_900, 9_999, 10_000),
            100_000: (70_000, 99_990),
        }.items()
        for k in counts
        for alpha in (0.05, 0.001, 1e-6)
    ]
    radii = [0.5 + 2**-50, 0.5001, 0.6, 0.75, 0.9, 0.99, 0.9993, 1 - 1e-6, 1 - 1e-12, 1 - 2**-53]
    audits = [
        (population, drawn, m, alpha)
        for population, drawn in ((1, 1), (20, 7), (60, 59), (500, 100), (9_000, 400))
        for m in (0, 1, 5, 40)
        for alpha in (0.05, 0.0005)
        if m <= drawn
    ]
    joint = [
        (60, 60, 20, 0, 0.05, 0.6, 0.02),
        (50, 60, 20, 0, 0.001, 0.3, 0.02),
        (50, 60, 25, 2, 0.05, 0.75, 0.02),
        (55, 60, 55, 3, 0.05, 0.6, 0.02),
        (40, 40, 15, 1, 0.001, 0.9, 0.1),
        (110, 120, 60, 1, 0.05, 0.45, 0.02),
    ]
    votes = [(0, 0), (1, 0), (5, 5), (60, 40), (99, 1), (5_200, 4_800), (9_000, 1_000)]
    reference = {
        "clopper_pearson_lower": [
            [k, n, alpha, mp.nstr(clopper_pearson_lower(k, n, mpf(alpha)), 25)]
            for k, n, alpha in lower
        ],
        "certified_radius": [[p, mp.nstr(quantile(mpf(p)), 25)] for p in radii],
        "disagreements_upper": [[*case, disagreements_upper(*case)] for case in audits],
        "majority_p_value": [
            [
                a,
                b,
                mp.nstr(
                    min(
                        mpf(1),
                        2
                        * mpf(sum(comb(a + b, j) for j in range(max(a, b), a + b + 1)))
                        / 2 ** (a + b),
                    ),
                    25,
                ),
            ]
            for a, b in votes
        ],
        "theorem_a_joint_lower": [
            [*case, mp.nstr(theorem_a_joint_lower(*case), 20)] for case in joint
        ],
    }
    path = Path(__file__).with_name("reference.json")
    lines = []
    for name, rows in reference.items():
        body = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        lines.append(f'"{name}": [\n{body}\n ]')
    path.write_text("{\n " + ",\n ".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
