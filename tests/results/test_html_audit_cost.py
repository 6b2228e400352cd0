"""What audits cost: differences of radii of the very rules that certify."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from deqcert.certificate import Audit
from deqcert.results.audit_cost import audit_costs
from deqcert.results.records import make_record
from deqcert.stats import (
    JointRegion,
    certified_radius,
    clopper_pearson_lower,
    theorem_a_joint_lower,
)
from tests.results.made import TEMPLATE, certificate

REGION = JointRegion(0.001, 0.6, 0.02)


def joint(drawn: int, disagreements: int) -> dict[str, Any]:
    p_lower = theorem_a_joint_lower(
        count=950, n=1000, drawn=drawn, disagreements=disagreements, region=REGION
    )
    audit = Audit(population=950, drawn=drawn, disagreements=disagreements, upper_bound=None)
    made = replace(
        TEMPLATE,
        guarantee="audited",
        method="srs",
        audit=audit,
        p_lower=p_lower,
        radius=certified_radius(p_lower, 0.5),
        plan={"method": "srs", "rule": "theorem-a-joint", "weight": 0.6, "strip": 0.02},
    )
    return make_record(made, label=0)


def test_costs_add_up_to_the_way_from_face_value() -> None:
    face = certified_radius(float(clopper_pearson_lower(950, 1000, 0.001)), 0.5)
    clean = joint(300, 0)["radius"]
    row = joint(300, 3)
    (cost,) = audit_costs([row])
    assert cost.found == pytest.approx(clean - row["radius"], abs=1e-12)
    assert cost.unseen == pytest.approx(face - clean, abs=1e-12)
    assert cost.found > 0
    assert cost.unseen > 0
    assert cost.rate == pytest.approx(0.01)


def test_no_disagreement_costs_nothing_found() -> None:
    (cost,) = audit_costs([joint(300, 0)])
    assert cost.found == 0.0
    assert cost.unseen > 0
    assert audit_costs([joint(900, 0)])[0].unseen < cost.unseen


def test_only_audits_with_a_guarantee_count() -> None:
    paper = joint(300, 0) | {"guarantee": "none"}
    assert audit_costs([make_record(certificate(), label=0), paper]) == []


def test_of_many_audits_an_even_selection() -> None:
    rows = [joint(300, k % 3) | {"index": k} for k in range(30)]
    assert [cost.index for cost in audit_costs(rows, most=10)] == list(range(0, 30, 3))
    assert len(audit_costs(rows, most=30)) == 30
