"""The certificates of Gao et al. (2024), kept for comparison only. Neither has a guarantee.

Weizhi Gao, Zhichao Hou, Han Xu and Xiaorui Liu, "Certified Robustness for Deep Equilibrium Models
via Serialized Random Smoothing", NeurIPS 2024, arXiv 2411.00899.
"""

from __future__ import annotations

import numpy as np

from deqcert.stats.binomial import beta_quantile_below
from deqcert.stats.validation import audit_counts, probability


def theorem_3_1_lower(*, agreed: int, audited: int, count: int, n: int, alpha: float) -> float:
    """The lower bound of the paper's Theorem 3.1: CP(r N_A, N, alpha/2), r = CP(N_1, N_2, alpha/2).

    Guarantee:
        None as published. The audited draws are the first batch after the warm-up, not a random
        choice, so a chain that starts to give wrong labels later is never caught: such a rule
        failed in 80 % of simulated runs. They are compared with a short solve, not with the
        classifier the certificate is about. And the published tables do not follow from the
        formula: at N = 10,000, alpha = 0.001, K = 400 and no disagreement it gives at most
        1.98 sigma, while certified accuracy is reported up to 3 sigma. See PAPER 3; the valid
        rules are THEORY 3, Theorems A and A'.

    Args:
        agreed: Audited draws labelled with the class by both solvers, N_1, in [0, audited].
        audited: Audited draws labelled with the class by the serialized solver, N_2.
        count: Draws labelled with the class by the serialized solver, N_A, in [audited, n].
        n: All draws, N.
        alpha: Failure probability the paper claims, in (0, 1).

    Returns:
        The value of the formula, in [0, 1), with the fractional count r N_A taken as it is.

    Raises:
        ConfigurationError: A count out of range, or an alpha outside (0, 1).
    """
    rate = _audit_rate(agreed=agreed, audited=audited, count=count, n=n, alpha=alpha)
    return float(beta_quantile_below(np.asarray(rate * count), n, np.asarray(alpha / 2)))


def released_code_lower(*, agreed: int, audited: int, count: int, n: int, alpha: float) -> float:
    """The lower bound that the public code computes instead: CP(r N_A, r N, alpha/2).

    Guarantee:
        None. The audit rate r scales successes and draws alike, so the estimated proportion stays
        N_A / N however many audited labels turn out wrong: with true p = 0.6 and serialized labels
        all of the class it claimed 2.98 sigma where 0.25 sigma is true. See PAPER 3.

    Args:
        agreed: As `theorem_3_1_lower`.
        audited: As `theorem_3_1_lower`.
        count: As `theorem_3_1_lower`.
        n: As `theorem_3_1_lower`.
        alpha: As `theorem_3_1_lower`.

    Returns:
        The value of the formula, in [0, 1).

    Raises:
        ConfigurationError: A count out of range, or an alpha outside (0, 1).
    """
    rate = _audit_rate(agreed=agreed, audited=audited, count=count, n=n, alpha=alpha)
    if rate == 0.0:
        return 0.0
    return float(beta_quantile_below(np.asarray(rate * count), rate * n, np.asarray(alpha / 2)))


def _audit_rate(*, agreed: int, audited: int, count: int, n: int, alpha: float) -> float:
    probability("alpha", alpha)
    audit_counts(count=count, n=n, drawn=audited, disagreements=audited - agreed)
    if agreed == 0:
        return 0.0
    return float(beta_quantile_below(np.asarray(agreed), audited, np.asarray(alpha / 2)))
