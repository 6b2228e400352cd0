"""What an audit is expected to buy, before it is made: approximate, and used for planning only.

No certificate depends on the accuracy of anything here: a plan made from other draws is valid
whatever it says (THEORY 5.1), a poor forecast only costs time or radius.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, special

from deqcert.stats.regions import JointRegion

WEIGHTS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)  # the radius is flat around its best weight
_HEIGHTS = 17  # values of u2 at which the joint bound is probed
_NODES_P, _NODES_D = 4, 3


@dataclass(frozen=True)
class Outlook:
    """Equally shaped arrays of what the estimation draws may bring, and how likely each is.

    Attributes:
        likelihood: Probability of each case; they add up to 1.
        p: Probability of the class under the reference classifier.
        claimed: Share of draws the serialized solver gives to the class.
        disagreeing: Share of the claimed draws whose reference label is another.
    """

    likelihood: np.ndarray  # (cases,)
    p: np.ndarray  # (cases,)
    claimed: np.ndarray  # (cases,)
    disagreeing: np.ndarray  # (cases,)

    def mean(
        self,
        values: np.ndarray,  # (*batch, cases)
    ) -> np.ndarray:  # (*batch,)
        """Average over the cases."""
        return values @ self.likelihood


def outlook(
    *,
    n0: int,
    count0: int,
    claimed: int,
    disagreed: int,
    missed: int | None,
    prior_rate: float,
    prior_draws: float,
) -> Outlook:
    """Spread what a pilot leaves open over a few cases, by Gauss quadrature.

    The class probability p has the posterior Beta(count0 + 1/2, n0 - count0 + 1/2). The share d of
    wrong labels among the claimed ones has a Beta posterior too, whose prior is worth `prior_draws`
    draws and expects one wrong claim for ``1 / prior_rate`` draws that are not of the class: labels
    go wrong near the decision boundary, and a class with p near 1 has few draws there. The mean of
    the posterior alone would do badly: after 0 disagreements of 90 a rate of 1 % is still likely.
    The claims missed (reference label of the class, serialized label another) are taken to balance
    the wrong ones where `missed` is not known.
    """
    p, weight_p = beta_quadrature(count0 + 0.5, n0 - count0 + 0.5, _NODES_P)
    p_mean = (count0 + 0.5) / (n0 + 1.0)
    wrong = prior_draws * min(0.5, prior_rate * (1.0 - p_mean) / p_mean)
    right = prior_draws - wrong
    d, weight_d = beta_quadrature(wrong + disagreed, right + claimed - disagreed, _NODES_D)
    p, d = (grid.ravel() for grid in np.meshgrid(p, d, indexing="ij"))
    lost = d if missed is None else (wrong + missed) / (prior_draws + claimed - disagreed + missed)
    kept = p * (1.0 - lost)
    false_claims = np.minimum(kept * d / (1.0 - d), 1.0 - p)  # no more than other draws there are
    share = kept + false_claims
    return Outlook(
        likelihood=np.outer(weight_p, weight_d).ravel(),
        p=p,
        claimed=share,
        disagreeing=false_claims / np.maximum(share, 1e-12),
    )


def beta_quadrature(
    a: float, b: float, nodes: int
) -> tuple[np.ndarray, np.ndarray]:  # (nodes,) in (0, 1), (nodes,) adding up to 1
    """Gauss quadrature for the distribution Beta(a, b), by Golub and Welsch (1969).

    Exact for polynomials of degree 2 nodes - 1, from the three-term recurrence of the Jacobi
    polynomials; no gamma functions, so large a and b do no harm. a, b > 0 and a + b > 1.
    """
    alpha, beta = b - 1.0, a - 1.0
    k = np.arange(1.0, nodes)
    s = 2.0 * k + alpha + beta
    first = (beta - alpha) / (alpha + beta + 2.0)
    diagonal = np.append(first, (beta**2 - alpha**2) / (s * (s + 2.0)))
    # At k = 1 the factors (k + alpha + beta) and (s - 1) are equal and cancel.
    cancel = np.append(1.0, (k[1:] + alpha + beta) / (s[1:] - 1.0))
    squares = 4.0 * k * (k + alpha) * (k + beta) * cancel / (s**2 * (s + 1.0))
    x, vectors = linalg.eigh_tridiagonal(diagonal, np.sqrt(squares))
    return (1.0 + x) / 2.0, vectors[0] ** 2


def audited_radii(
    cases: Outlook,
    drawn: np.ndarray,  # (sizes,) audits
    *,
    n: int,
    alpha: float,
) -> np.ndarray:  # (weights, sizes), in units of sigma
    """Expected radius by Theorem A' for every weight in `WEIGHTS` and every size of the audit.

    Counts are at their expectation in each case, M at height u2 comes from Wise's (1954) binomial
    approximation of the hypergeometric cdf, and the least bound from a few heights only.
    """
    regions = [JointRegion(alpha, weight) for weight in WEIGHTS]
    edge = regions[0].strip * alpha * (1.0 + 1e-9)
    heights = special.ndtr(-np.linspace(-1.0, -special.ndtri(edge), _HEIGHTS - 1))
    u2 = np.append(1.0, np.maximum(heights, edge))
    level = np.array([region.count_level(u2) for region in regions])  # (weights, heights)

    count = n * cases.claimed[:, None]  # (cases, 1)
    size = np.minimum(drawn[:, None, None], count)  # (sizes, cases, 1)
    m = size * cases.disagreeing[:, None]
    rate = special.betainccinv(m + 1.0, np.maximum(size - m, 1e-6), u2)
    bad = m / 2.0 + rate * (count - (size - 1.0) / 2.0)
    agree = count - np.clip(bad, m, np.maximum(m, count - size + m))  # (sizes, cases, heights)
    bound = _quick_lower(agree, n, level[:, None, None, :]).min(axis=-1)
    return cases.mean(_radius(bound))


def census_radius(cases: Outlook, *, n: int, alpha: float) -> float:
    """Expected radius where every claimed draw is audited, in units of sigma."""
    agree = n * cases.claimed * (1.0 - cases.disagreeing)
    return float(cases.mean(_radius(_lower(agree, n, np.asarray(alpha)))))


def standard_radius(cases: Outlook, *, n: int, alpha: float) -> float:
    """Expected radius of n independent reference solves, in units of sigma."""
    return float(cases.mean(_radius(_lower(n * cases.p, n, np.asarray(alpha)))))


def _lower(count: np.ndarray, n: int, level: np.ndarray) -> np.ndarray:
    count = np.clip(count, 1e-3, n)
    return special.betaincinv(count, n - count + 1.0, level)


def _quick_lower(
    count: np.ndarray,  # (*batch,) real numbers
    n: int,
    level: np.ndarray,  # (*batch,) in (0, 1)
) -> np.ndarray:  # (*batch,) in (0, 1)
    """Beta quantile in closed form: Abramowitz and Stegun (1964), formula 26.5.22.

    Radii are within 0.005 from two missing draws on, and 0.1 too small at none.
    """
    count = np.clip(count, 1.0, n)
    other = n - count + 1.0
    near, far = 1.0 / (2.0 * count - 1.0), 1.0 / (2.0 * other - 1.0)
    h, z = 2.0 / (near + far), -special.ndtri(level)
    third = (z**2 - 3.0) / 6.0
    root = z * np.sqrt(np.maximum(h + third, 0.0)) / h
    w = root - (far - near) * (third + 5.0 / 6.0 - 2.0 / (3.0 * h))
    return count / (count + other * np.exp(2.0 * w))


def _radius(bound: np.ndarray) -> np.ndarray:
    return special.ndtri(np.maximum(bound, 0.5))
