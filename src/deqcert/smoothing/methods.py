"""The certification methods: what each draws, counts and may conclude."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deqcert.certificate import Audit
from deqcert.smoothing.audit import audited_count
from deqcert.smoothing.chains import Serialization
from deqcert.smoothing.proved import require_proofs
from deqcert.smoothing.sampling import Draws, count_labels
from deqcert.smoothing.spent import Spent
from deqcert.stats import (
    AuditPlan,
    clopper_pearson_lower,
    plan_audit,
    theorem_3_1_lower,
)


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """The numbers of a certification, fixed before any draw.

    Attributes:
        n0: Selection draws.
        n: Estimation draws.
        alpha: Failure probability.
        audit: ``"auto"``, a count or a share of the draws labelled with the class.
        serialization: How serialized labels are made.
    """

    n0: int
    n: int
    alpha: float
    audit: int | float | str
    serialization: Serialization


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a method found: the statistical half of a certificate."""

    predicted: int | None
    p_lower: float
    guarantee: str
    counts0: np.ndarray
    counts: np.ndarray
    count: int
    alpha_count: float | None
    alpha_audit: float | None
    audit: Audit | None = None
    serialized: bool = False
    plan: dict[str, Any] = field(default_factory=dict)


def standard(sampler: Draws, procedure: Procedure, spent: Spent, pilot: Spent) -> Outcome:
    """Certify by independent cold solves (Cohen, Rosenfeld, Kolter 2019; THEORY 2).

    Guarantee:
        With probability at least ``1 - alpha`` over the draws, ``p_lower`` is at most the
        probability of the predicted class under the noise.
    """
    counts0 = sampler.cold_counts("selection", procedure.n0, pilot)
    plan = {"method": "standard", "reason": "requested"}
    return _independent(sampler, procedure, spent, counts0, plan)


def _independent(
    sampler: Draws,
    procedure: Procedure,
    spent: Spent,
    counts0: np.ndarray,  # (classes,)
    plan: dict[str, Any],
) -> Outcome:
    counts = sampler.cold_counts("estimation", procedure.n, spent)
    predicted = _most_frequent(counts0)
    count = 0 if predicted is None else int(counts[predicted])
    return Outcome(
        predicted=predicted,
        p_lower=float(clopper_pearson_lower(count, procedure.n, procedure.alpha)),
        guarantee="standard",
        counts0=counts0,
        counts=counts,
        count=count,
        alpha_count=procedure.alpha,
        alpha_audit=0.0,
        plan=plan,
    )


def srs(sampler: Draws, procedure: Procedure, spent: Spent, pilot: Spent) -> Outcome:
    """Certify by serialized solves and a random audit (THEORY 3, Theorems A and A').

    The selection draws are labelled cold, and also serialized: from both the size of the audit is
    planned, or that independent solves (the method ``standard``) or an abstention are the better
    way for this image. All of that is decided on other draws than the estimate's (THEORY 5.1).

    Guarantee:
        With probability at least ``1 - alpha`` over the draws and the audit, ``p_lower`` is at
        most the probability of the predicted class of the *reference* classifier under the noise.
    """
    classes = sampler.classifier.num_classes
    found = sampler.cold("selection", range(procedure.n0), pilot)
    reference = found.clear(sampler.classifier.margin)
    counts0 = count_labels(reference, classes)
    predicted = _most_frequent(counts0)
    if predicted is None:
        reason = "no selection draw has a clear label"
        return given_up(counts0, {"method": "abstain", "reason": reason})
    plan = _plan(sampler, procedure, reference, predicted, pilot)
    record = _plan_record(plan)
    if plan.method == "abstain":
        return given_up(counts0, record)
    if plan.method == "standard":
        return _independent(sampler, procedure, spent, counts0, record)
    labels = sampler.serialized("estimation", procedure.n, procedure.serialization, spent)
    audited = audited_count(sampler, labels, predicted, plan, spent)
    return Outcome(
        predicted=predicted,
        p_lower=audited.p_lower,
        guarantee="audited",
        counts0=counts0,
        counts=count_labels(labels, classes),
        count=audited.count,
        alpha_count=plan.alpha_count,
        alpha_audit=plan.alpha_audit,
        audit=audited.audit,
        serialized=True,
        plan=record,
    )


def _plan(
    sampler: Draws,
    procedure: Procedure,
    reference: np.ndarray,  # (n0,) clear cold labels of the selection draws
    predicted: int,
    pilot: Spent,
) -> AuditPlan:
    cold_cost = pilot.cell_evaluations / procedure.n0
    how = procedure.serialization
    # Shorter chains than in the run, so that most pilot draws are warm ones.
    chains = max(1, min(how.chains, procedure.n0 // 5))
    sampler.prepare(how, pilot)
    warm = Spent()
    labels = sampler.serialized(
        "selection",
        procedure.n0,
        Serialization(serial=how.serial, warmup=how.warmup, start=how.start, chains=chains),
        warm,
        shown_as="pilot",
    )
    pilot.merge(warm)
    if how.start == "linear":
        warm_cost, later = warm.cell_evaluations / procedure.n0, slice(None)
    else:
        warm_cost = how.serial.max_steps
        later = np.arange(len(labels)) >= chains if procedure.n0 > chains else slice(None)
    serial, cold = labels[later], reference[later]
    claimed, confirmed = serial == predicted, cold == predicted
    return plan_audit(
        n0=procedure.n0,
        count0=int((reference == predicted).sum()),
        pilot_claimed=int(claimed.sum()),
        pilot_disagreed=int((claimed & ~confirmed).sum()),
        pilot_missed=int((confirmed & ~claimed).sum()),
        n=procedure.n,
        alpha=procedure.alpha,
        # A linear start may settle every draw without a cell evaluation.
        cost_ratio=max(warm_cost, 1e-9) / max(cold_cost, 1e-9),
        audit=procedure.audit,
    )


def _plan_record(plan: AuditPlan) -> dict[str, Any]:
    record: dict[str, Any] = {
        "method": plan.method,
        "reason": plan.reason,
        "expected_radius_over_sigma": plan.expected_radius,
        "expected_reference_solves": plan.expected_cost,
    }
    if plan.method == "srs":
        record["audit"] = plan.drawn
        record["rule"] = "theorem-a" if plan.region is None else "theorem-a-joint"
        if plan.region is not None:
            record["weight"] = plan.region.weight
            record["strip"] = plan.region.strip
    return record


def given_up(
    counts0: np.ndarray,  # (classes,)
    plan: dict[str, Any],
    *,
    guarantee: str = "audited",
) -> Outcome:
    """Return the outcome of an image of which nothing is claimed; the plan says why."""
    return Outcome(
        predicted=None,
        p_lower=0.0,
        guarantee=guarantee,
        counts0=counts0,
        counts=np.zeros_like(counts0),
        count=0,
        alpha_count=None,
        alpha_audit=None,
        plan=plan,
    )


def srs_paper(sampler: Draws, procedure: Procedure, spent: Spent, pilot: Spent) -> Outcome:
    """Repeat Theorem 3.1 of Gao et al. (2024) as published, for comparison.

    Guarantee:
        None. The checked draws are the first ones after the first batch instead of random ones,
        and the estimated share of wrong labels is not bounded jointly with the count as a valid
        rule must (PAPER 3, THEORY 3); `guarantee` is recorded as ``none``.
    """
    classes = sampler.classifier.num_classes
    how = procedure.serialization
    selection = sampler.serialized("selection", procedure.n0, how, pilot)
    counts0 = count_labels(selection, classes)
    predicted = _most_frequent(counts0)
    if predicted is None:
        reason = "no selection draw has a label"
        return given_up(counts0, {"method": "abstain", "reason": reason}, guarantee="none")
    labels = sampler.serialized("estimation", procedure.n, how, spent)
    counts = count_labels(labels, classes)
    first = min(how.chains, max(procedure.n - 1, 0))
    checked = np.arange(first, min(first + published_audit(procedure), procedure.n))
    reference = sampler.cold("estimation", checked, spent, shown_as="audit").label
    claimed = labels[checked] == predicted
    agreed = int((claimed & (reference == predicted)).sum())
    count = int(counts[predicted])
    p_lower = theorem_3_1_lower(
        agreed=agreed, audited=int(claimed.sum()), count=count, n=procedure.n, alpha=procedure.alpha
    )
    return Outcome(
        predicted=predicted,
        p_lower=float(p_lower),
        guarantee="none",
        counts0=counts0,
        counts=counts,
        count=count,
        alpha_count=procedure.alpha / 2,
        alpha_audit=procedure.alpha / 2,
        audit=Audit(
            population=count,
            drawn=int(claimed.sum()),
            disagreements=int(claimed.sum()) - agreed,
            upper_bound=None,
        ),
        serialized=True,
        plan={"method": "srs-paper", "reason": "as published; no guarantee"},
    )


def published_audit(procedure: Procedure) -> int:
    """Return K of the published rule: 400 unless a count or share was asked for."""
    if isinstance(procedure.audit, str):
        return 400
    if isinstance(procedure.audit, float):
        return round(procedure.audit * procedure.n)
    return procedure.audit


def _most_frequent(counts: np.ndarray) -> int | None:
    return int(counts.argmax()) if counts.sum() > 0 else None


def proved(sampler: Draws, procedure: Procedure, spent: Spent, pilot: Spent) -> Outcome:
    """Certify by serialized solves whose labels are proved one by one (THEORY 4).

    A draw counts for the class only if a bound on the distance to its exact equilibrium proves
    that label. Whatever the draws before it did to its start, that label is the one of a function
    of this draw alone: proved draws of the class are at most as many as draws of the class.

    Guarantee:
        With probability at least ``1 - alpha`` over the draws, ``p_lower`` is at most the
        probability, under the noise, that the label at the *exact equilibrium* is the predicted
        class. No audit, no share of alpha for one.
    """
    how, classes = procedure.serialization, sampler.classifier.num_classes

    def counted(stage: str, n: int, account: Spent) -> np.ndarray:
        return count_labels(sampler.serialized(stage, n, how, account, proved=True), classes)

    model = require_proofs(sampler.classifier.model, how.start)
    counts0 = counted("selection", procedure.n0, pilot)
    predicted = _most_frequent(counts0)
    if predicted is None:
        reason = "no selection draw has a proved label"
        return given_up(counts0, {"method": "abstain", "reason": reason}, guarantee="proved")
    counts = counted("estimation", procedure.n, spent)
    count = int(counts[predicted])
    plan = {
        "method": "proved",
        "reason": "requested",
        "unproved_share": 1.0 - int(counts.sum()) / procedure.n,
        "proof": model.proof_facts(),
    }
    return Outcome(
        predicted=predicted,
        p_lower=float(clopper_pearson_lower(count, procedure.n, procedure.alpha)),
        guarantee="proved",
        counts0=counts0,
        counts=counts,
        count=count,
        alpha_count=procedure.alpha,
        alpha_audit=0.0,
        serialized=True,
        plan=plan,
    )


METHODS: dict[str, Callable[[Draws, Procedure, Spent, Spent], Outcome]] = {
    "standard": standard,
    "srs": srs,
    "proved": proved,
    "srs-paper": srs_paper,
}
GUARANTEES = {"standard": "standard", "srs": "audited", "proved": "proved", "srs-paper": "none"}
"""The guarantee of records of each method, those that give an image up included."""
