"""Choosing, from draws that are used for nothing else, how an image is to be certified.

THEORY 5.1: the pilot's draws are independent of the estimation draws, so method, audit and region
may all depend on the pilot, at no cost in alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deqcert.errors import ConfigurationError
from deqcert.stats import forecast
from deqcert.stats.binomial import clopper_pearson_upper
from deqcert.stats.feasibility import checked_audit, minimum_audit
from deqcert.stats.regions import JointRegion
from deqcert.stats.validation import positive, probability, whole_number

HOPELESS = 1e-3  # an image is given up where p > 1/2 would make the pilot less likely than this
_GRID = 14  # sizes of the audit whose radius is forecast; between them the forecast is interpolated


@dataclass(frozen=True, kw_only=True)
class AuditPlan:
    """What will be done for one image, fixed before its estimation draws.

    Attributes:
        method: ``srs`` (serialized draws and an audit), ``standard`` (independent reference
            solves) or ``abstain``.
        drawn: Draws to audit of those given to the class, K: a count, capped by what there is,
            ``"all"`` for a census, 0 where the method is not ``srs``.
        region: How alpha is shared (Theorem A'); None for a census, ``standard`` and ``abstain``.
        alpha_count: Alpha spent on the count; None with a region.
        alpha_audit: Alpha spent on the audit; None with a region, 0.0 without.
        weight: The region's weight, or None.
        reason: Why, in one sentence.
        expected_radius: Forecast radius, in units of sigma.
        expected_cost: Forecast cost of the estimation, in reference solves.
    """

    method: Literal["srs", "standard", "abstain"]
    drawn: int | Literal["all"]
    region: JointRegion | None
    alpha_count: float | None
    alpha_audit: float | None
    weight: float | None
    reason: str
    expected_radius: float
    expected_cost: float


def plan_audit(
    *,
    n0: int,
    count0: int,
    pilot_claimed: int,
    pilot_disagreed: int,
    pilot_missed: int | None = None,
    n: int,
    alpha: float,
    cost_ratio: float,
    audit: int | float | str = "auto",
    radius_slack: float = 0.02,
    prior_rate: float = 0.02,
    prior_draws: float = 50.0,
) -> AuditPlan:
    """Plan the certification of one image from its pilot.

    With ``audit="auto"`` the plan is the cheapest of: an audit of K draws (K on a grid up to the
    cost of independent solves, the best weight for each), a census of the draws given to the class,
    and n independent reference solves, among those whose expected radius comes within
    `radius_slack` of the last. Expectations are over what the pilot leaves open about the class
    probability and the rate of disagreement (`forecast.outlook`), so that a small pilot without a
    disagreement does not pass for a proof that there are none. An abstention is planned where the
    pilot rules out p > 1/2 (upper confidence bound at 1 - 0.001): it is always allowed.

    With a count or a share only the weight is chosen. A share is of the draws expected to be given
    to the class, so that K too is known beforehand; a share of 1.0, or a count of n, is a census.

    Guarantee:
        Whatever is planned is valid without any correction if the pilot's draws are not used in
        the estimate and the plan is carried out as it is. THEORY 5.1.

    Args:
        n0: Pilot draws with a reference label, >= 1.
        count0: Those of them labelled with the class.
        pilot_claimed: Pilot draws (of those that carry both labels) whose serialized label is the
            class.
        pilot_disagreed: Those of them whose reference label is another.
        pilot_missed: Pilot draws with both labels, the reference one the class and the serialized
            one another; None where not known (then taken to balance the disagreements).
        n: Estimation draws.
        alpha: Failure probability of the certificate.
        cost_ratio: Cost of a serialized solve / cost of a reference solve, > 0.
        audit: ``"auto"``, a count in [1, n], or a share in (0, 1].
        radius_slack: Radius that may be given up for speed, in units of sigma, >= 0.
        prior_rate: Expected wrong claims per draw that is not of the class, before the pilot.
        prior_draws: Weight of that expectation, in draws.

    Raises:
        ConfigurationError: A value out of range, or counts that contradict each other.
    """
    _check_pilot(n0, count0, pilot_claimed, pilot_disagreed, pilot_missed)
    n = whole_number("n", n, at_least=1)
    alpha = probability("alpha", alpha)
    cost_ratio = positive("cost_ratio", cost_ratio)
    audit = checked_audit(audit, n)
    if not radius_slack >= 0:
        raise ConfigurationError(f"radius_slack must be >= 0, but got {radius_slack!r}")
    cases = forecast.outlook(
        n0=n0,
        count0=count0,
        claimed=pilot_claimed,
        disagreed=pilot_disagreed,
        missed=pilot_missed,
        prior_rate=probability("prior_rate", prior_rate),
        prior_draws=positive("prior_draws", prior_draws),
    )
    bench = _Bench(cases, n, alpha, cost_ratio)
    if not isinstance(audit, str):
        return bench.requested(audit)
    if clopper_pearson_upper(count0, n0, HOPELESS) <= 0.5:
        return _abstention(count0, n0)
    return bench.cheapest(radius_slack)


@dataclass(frozen=True)
class _Bench:
    """The options for one image, each with its forecast."""

    cases: forecast.Outlook
    n: int
    alpha: float
    cost_ratio: float

    def cheapest(self, slack: float) -> AuditPlan:
        """Return the cheapest plan that is expected within `slack` of `standard`."""
        standard = self.standard(slack)
        target = standard.expected_radius - slack
        options = [self.census("an audit of all draws of the class"), self.sampled(target)]
        within = [p for p in options if p is not None and p.expected_radius >= target]
        best = min(within, key=lambda plan: plan.expected_cost, default=standard)
        return best if best.expected_cost < standard.expected_cost else standard

    def requested(self, audit: int | float) -> AuditPlan:
        """Return the plan for an audit somebody asked for."""
        if audit == self.n or (isinstance(audit, float) and audit == 1.0):
            return self.census("a full audit was requested")
        if isinstance(audit, float):
            size = max(1, math.ceil(audit * self.n * self._claimed))
            return self.audited(size, f"an audit of {audit:.6g} of the draws was requested")
        return self.audited(audit, f"an audit of {audit} draws was requested")

    def standard(self, slack: float) -> AuditPlan:
        """Return the plan of n independent reference solves."""
        return AuditPlan(
            method="standard",
            drawn=0,
            region=None,
            alpha_count=self.alpha,
            alpha_audit=0.0,
            weight=None,
            reason=f"no audit is expected within {slack:g} sigma of independent solves for less",
            expected_radius=forecast.standard_radius(self.cases, n=self.n, alpha=self.alpha),
            expected_cost=float(self.n),
        )

    def census(self, why: str) -> AuditPlan:
        """Return the plan that audits every draw of the class, with all alpha on the count."""
        return AuditPlan(
            method="srs",
            drawn="all",
            region=None,
            alpha_count=self.alpha,
            alpha_audit=0.0,
            weight=None,
            reason=f"{why}: their disagreements are known",
            expected_radius=forecast.census_radius(self.cases, n=self.n, alpha=self.alpha),
            expected_cost=self.n * (self.cost_ratio + self._claimed),
        )

    def sampled(self, target: float) -> AuditPlan | None:
        """Return the smallest audit expected to reach `target`, or None below standard's cost."""
        least = minimum_audit(self.alpha, self.n)
        most = int(self.n * min(1.0 - self.cost_ratio, self._claimed))
        if most < least:
            return None
        sizes = np.unique(np.geomspace(least, most, _GRID).astype(int))
        radii = self._radii(sizes).max(axis=0)
        if not np.any(radii >= target):
            return None
        why = "the cheapest audit expected within the slack of independent solves"
        first = int(np.argmax(radii >= target))
        if first > 0:
            share = (target - radii[first - 1]) / (radii[first] - radii[first - 1])
            between = sizes[first - 1] * (sizes[first] / sizes[first - 1]) ** share
            plan = self.audited(math.ceil(between), why)
            if plan.expected_radius >= target:
                return plan
        return self.audited(int(sizes[first]), why)

    def audited(self, size: int, reason: str) -> AuditPlan:
        """Return the plan of an audit of `size` draws with its best weight."""
        radii = self._radii(np.array([size]))[:, 0]
        region = JointRegion(self.alpha, forecast.WEIGHTS[int(radii.argmax())])
        return AuditPlan(
            method="srs",
            drawn=size,
            region=region,
            alpha_count=None,
            alpha_audit=None,
            weight=region.weight,
            reason=reason,
            expected_radius=float(radii.max()),
            expected_cost=self.n * self.cost_ratio + min(size, self.n * self._claimed),
        )

    def _radii(self, sizes: np.ndarray) -> np.ndarray:
        return forecast.audited_radii(self.cases, sizes, n=self.n, alpha=self.alpha)

    @property
    def _claimed(self) -> float:
        return float(self.cases.mean(self.cases.claimed))


def _abstention(count0: int, n0: int) -> AuditPlan:
    return AuditPlan(
        method="abstain",
        drawn=0,
        region=None,
        alpha_count=None,
        alpha_audit=None,
        weight=None,
        reason=f"{count0} of {n0} pilot draws rule out a majority",
        expected_radius=0.0,
        expected_cost=0.0,
    )


def _check_pilot(n0: int, count0: int, claimed: int, disagreed: int, missed: int | None) -> None:
    whole_number("n0", n0, at_least=1)
    parts = {"count0": count0, "pilot_claimed": claimed, "pilot_disagreed": disagreed}
    if missed is not None:
        parts["pilot_missed"] = missed
    for name, value in parts.items():
        if whole_number(name, value, at_least=0) > n0:
            raise ConfigurationError(f"{name} must be at most n0 = {n0}, but got {value}")
    if disagreed > claimed:
        raise ConfigurationError(
            f"pilot_disagreed must be at most pilot_claimed = {claimed}, but got {disagreed}"
        )
    if claimed - disagreed + (missed or 0) > count0:
        raise ConfigurationError(
            f"pilot draws with both labels of the class must be at most count0 = {count0}, "
            f"but got {claimed - disagreed + (missed or 0)}"
        )
