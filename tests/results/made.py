"""Certificates with chosen outcomes, for the tests of everything after the last solve."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deqcert.certificate import Audit, Certificate, DeterministicCertificate, Reference

TEMPLATE = Certificate(
    prediction=0,
    radius=0.5,
    p_lower=0.84,
    guarantee="standard",
    method="standard",
    sigma=0.5,
    alpha=0.001,
    alpha_count=0.001,
    alpha_audit=None,
    n0=100,
    n=1000,
    counts0=(90, 6, 4),
    counts=(900, 60, 40),
    count=900,
    audit=None,
    reference=Reference(
        weights_digest="ab" * 32, solver="anderson:30", precision="float32", margin=1e-5
    ),
    serial=None,
    warmup=None,
    start=None,
    chains=None,
    noise="philox-test",
    seed=0,
    index=0,
    plan={"reason": "fixed"},
    steps={"0.5": 30.0, "1.0": 30.0},
    residual={"0.5": 1e-3, "1.0": None},
    unconverged=0,
    cell_evaluations=33_000,
    seconds=1.5,
)

CONFIGURATION: dict[str, Any] = {
    "data": {"name": "digits", "split": "test", "digest": "cd" * 32},
    "method": "standard",
    "sigma": 0.5,
    "seed": 0,
}
ENVIRONMENT: dict[str, Any] = {"device": "cpu", "batch_size": 400}


def certificate(index: int = 0, **changes: Any) -> Certificate:
    """A certificate of image `index` like `TEMPLATE` but for `changes`."""
    return replace(TEMPLATE, index=index, **changes)


def audited(index: int = 0, *, drawn: int, disagreements: int, **changes: Any) -> Certificate:
    """A serialized certificate with an audit."""
    audit = Audit(
        population=900, drawn=drawn, disagreements=disagreements, upper_bound=disagreements + 9
    )
    settings = {"guarantee": "audited", "method": "srs", "serial": "anderson:3", "chains": 400}
    return certificate(index, audit=audit, **{**settings, **changes})


def certain(
    index: int = 0, *, method: str = "lipschitz", **changes: Any
) -> DeterministicCertificate:
    """A deterministic certificate of image `index`, in L2 or in Linf."""
    template = DeterministicCertificate(
        prediction=0,
        radius=0.5 if method == "lipschitz" else 3 / 255,
        norm="L2" if method == "lipschitz" else "Linf",
        method=method,
        reference=Reference(
            weights_digest="ab" * 32, solver="equilibrium", precision="exact", margin=0.0
        ),
        domain="all" if method == "lipschitz" else "pixels",
        index=index,
        distance=1e-9,
        facts={"m": 1.0},
        cell_evaluations=60,
        seconds=0.01,
    )
    return replace(template, **changes)
