"""Lower bounds of a class probability from serialized labels and a random audit of them.

N draws, N_A of them labelled with the class by a serialized solver, K of those chosen uniformly
without replacement after the run and solved cold by the reference classifier, m of them found to
disagree. THEORY 3, Theorems A and A'.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from deqcert.stats.binomial import beta_quantile_below, clopper_pearson_lower
from deqcert.stats.hypergeometric import disagreement_tail, disagreements_upper
from deqcert.stats.regions import JointRegion, Region, SplitRegion
from deqcert.stats.validation import audit_counts

__all__ = ["JointRegion", "Region", "SplitRegion", "theorem_a_joint_lower", "theorem_a_lower"]


def theorem_a_lower(
    *,
    count: int,
    n: int,
    drawn: int,
    disagreements: int,
    alpha_count: float,
    alpha_audit: float,
) -> tuple[float, int]:
    """Theorem A: bound the disagreements by the audit, then the probability by what remains.

    A plan made *beforehand* to audit every draw of the class (a census) may put the whole alpha on
    the count: with ``drawn == count`` and ``alpha_audit=0`` the disagreements are known and the
    bound is Clopper-Pearson's for the reference labels themselves.

    Guarantee:
        ``P(p_lower <= P(f(x + e) = c)) >= 1 - alpha_count - alpha_audit`` over the N draws and the
        audit, for any serialized labels whatever, if c, n and both shares were fixed without
        looking at the N draws and the audited ones were chosen uniformly, independently of the
        run. THEORY 3, Theorem A.

    Args:
        count: Draws the serialized solver labelled with the class, N_A, in [0, n].
        n: All draws, N.
        drawn: Draws audited, K, in [0, count].
        disagreements: Audited draws whose reference label is not the class, m, in [0, drawn].
        alpha_count: Failure probability spent on the count, in (0, 1).
        alpha_audit: Failure probability spent on the audit, in [0, 1).

    Returns:
        The lower bound of the class probability, and the bound on all disagreements (M_bar).

    Raises:
        ConfigurationError: A count or a share out of range.

    >>> p_lower, upper_bound = theorem_a_lower(
    ...     count=9_000, n=10_000, drawn=400, disagreements=0,
    ...     alpha_count=0.0005, alpha_audit=0.0005,
    ... )
    >>> round(p_lower, 4), upper_bound
    (0.8726, 165)
    """
    audit_counts(count=count, n=n, drawn=drawn, disagreements=disagreements)
    upper = disagreements_upper(count, drawn, disagreements, alpha_audit)
    return clopper_pearson_lower(count - upper, n, alpha_count), upper


def theorem_a_joint_lower(
    *, count: int, n: int, drawn: int, disagreements: int, region: Region
) -> float:
    """Theorem A': bound the probability over all numbers of disagreements at once.

    The bound is the largest p0 such that, for every possible number M of disagreements, the
    p-values u1 = P(Bin(n, p0) >= count - M) and u2 = P(Hyp(count, M, drawn) <= m) lie in `region`.
    As u1 rises with p0, that is the least over M of CP(count - M, n, t(M)), with t(M) the largest
    u1 the region allows beside u2(M).

    Guarantee:
        ``P(p_lower <= P(f(x + e) = c)) >= 1 - region.alpha`` over the N draws and the audit, for
        any serialized labels whatever, if c, n and `region` were fixed without looking at the N
        draws and the audited ones were chosen uniformly, independently of the run. THEORY 3,
        Theorem A'. A `SplitRegion` gives Theorem A itself.

    Args:
        count: Draws the serialized solver labelled with the class, N_A, in [0, n].
        n: All draws, N.
        drawn: Draws audited, K, in [0, count].
        disagreements: Audited draws whose reference label is not the class, m, in [0, drawn].
        region: How alpha is shared, fixed beforehand.

    Returns:
        The lower bound of the class probability, in [0, 1).

    Raises:
        ConfigurationError: A count out of range.

    >>> round(theorem_a_joint_lower(
    ...     count=9_000, n=10_000, drawn=400, disagreements=0,
    ...     region=JointRegion(0.001, weight=0.6),
    ... ), 4)
    0.8775
    """
    audit_counts(count=count, n=n, drawn=drawn, disagreements=disagreements)
    level = region.count_level(disagreement_tail(count, drawn, disagreements))
    agree = count - disagreements - np.arange(len(level), dtype=np.float64)
    possible = level < 1.0
    return _least_bound(agree[possible], n, level[possible])


def _least_bound(
    agree: np.ndarray,  # (M,) reference labels of the class, for each number of disagreements
    n: int,
    level: np.ndarray,  # (M,) in (0, 1)
) -> float:
    """Return the least Clopper-Pearson bound over M, inverting the beta cdf a few times only.

    Starting where a normal approximation is least, the bound moves to the M whose p-value exceeds
    its level most until none does: what is returned has been checked against every M.
    """
    if agree.min() == 0:
        return 0.0
    share = agree / n
    worst = int(np.argmin(share + special.ndtri(level) * np.sqrt(share * (1.0 - share) / n)))
    bound = 1.0
    for _ in range(len(agree)):
        bound = min(bound, float(beta_quantile_below(agree[worst], n, level[worst])))
        excess = special.betainc(agree, n - agree + 1.0, bound) / level
        worst = int(np.argmax(excess))
        if excess[worst] <= 1.0:
            break
    return bound
