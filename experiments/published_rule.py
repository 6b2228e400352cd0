"""Does a certificate of serialized draws hold when warm solves drift away from cold ones?

    python -m experiments.published_rule --out experiments/results/published_rule

Certifies one image, whose true radius is known in closed form, with equilibrium models whose warm
solves go wrong on purpose (tests/problems.py), and counts how often each rule claims more than is
true: the rule in the code published with Gao et al. (2024), the theorem they prove, this project's
audited rule, and standard smoothing with no serialization at all. Writes OUT.json and OUT.md;
seconds per trial, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import track
from tests.problems import (
    LateBurstDEQ,
    LinearDEQ,
    PartialDriftDEQ,
    StickyDEQ,
    TwoClassDEQ,
    image_at,
    margin_for,
)

import deqcert
from deqcert.certificate import Certificate
from deqcert.smoothing import Certifier
from deqcert.stats import certified_radius, released_code_lower

SIGMA, PROBABILITY = 0.25, 0.6
"""Noise level, and probability of the class under it: the true radius is SIGMA * Phi^-1(0.6)."""


@dataclass(frozen=True)
class Drift:
    """A model, its serialized solver, and what its warm solves do."""

    claim: str
    model: TwoClassDEQ
    serial: str


@dataclass
class Tally:
    """What one rule claimed over all trials.

    Attributes:
        violations: Trials in which it claimed more than the true radius.
        radius: Largest claimed radius, in units of sigma.
        mean_radius: Mean claimed radius, in units of sigma; abstentions count as 0.
    """

    violations: int = 0
    radius: float = 0.0
    mean_radius: float = 0.0


def drifts(first: int) -> dict[str, Drift]:
    """Return the models; `first` is the number of evaluations after which bursts begin."""
    return {
        "none": Drift("warm and cold solves agree", LinearDEQ(), "picard:20"),
        "sticks": Drift("a warm solve stays with the class it is at", StickyDEQ(), "picard:8"),
        "bursts late": Drift(
            "warm solves are right at first, then all give the class",
            LateBurstDEQ(bursts_after=first),
            "picard:1",
        ),
        "drifts in part": Drift(
            "40 % of the warm solves give the class, whatever the image",
            PartialDriftDEQ(level=0.25, sigma=SIGMA),
            "picard:1",
        ),
    }


def radii(drift: Drift, *, n: int, alpha: float, chains: int, seed: int) -> dict[str, float]:
    """Return the radius that each rule claims in one trial, 0 where it abstains."""

    def certified(method: str, audit: int | str) -> Certificate:
        certifier = Certifier(
            drift.model,
            sigma=SIGMA,
            n=n,
            alpha=alpha,
            method=method,
            serial=drift.serial,
            warmup=str(drift.model.solver),
            chains=chains,
            audit=audit,
        )
        return certifier.certify(image_at(margin_for(PROBABILITY, SIGMA)), seed=seed)

    paper = certified("srs-paper", chains)
    assert paper.audit is not None, "it audits one batch"
    code = released_code_lower(
        agreed=paper.audit.drawn - paper.audit.disagreements,
        audited=paper.audit.drawn,
        count=paper.count,
        n=n,
        alpha=alpha,
    )
    return {
        "published code": certified_radius(code, SIGMA),
        "Theorem 3.1": paper.radius,
        "srs (Theorem A')": certified("srs", chains).radius,
        "srs, planned": certified("srs", "auto").radius,
        "standard": certified("standard", "auto").radius,
    }


def tallies(drift: Drift, trials: Iterator[int], **numbers: int | float) -> dict[str, Tally]:
    """Run the trials of one model."""
    true = margin_for(PROBABILITY, SIGMA)
    found: dict[str, Tally] = {}
    for done, seed in enumerate(trials):
        for rule, radius in radii(drift, seed=seed, **numbers).items():  # pyright: ignore
            tally = found.setdefault(rule, Tally())
            tally.violations += radius > true
            tally.radius = max(tally.radius, radius / SIGMA)
            tally.mean_radius += (radius / SIGMA - tally.mean_radius) / (done + 1)
    return found


def table(result: dict) -> str:
    """Return the result as Markdown."""
    lines = [
        "| warm solves | rule | claims too much | mean radius / sigma | largest | true |",
        "|---|---|---|---|---|---|",
    ]
    for name, drift in result["drifts"].items():
        for rule, tally in drift["rules"].items():
            lines.append(
                f"| {name} | {rule} | {tally['violations']} of {result['trials']} | "
                f"{tally['mean_radius']:.3f} | {tally['radius']:.3f} | "
                f"{result['true_radius_over_sigma']:.3f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="files to write, without suffix")
    parser.add_argument("--trials", type=int, default=40, help="seeds per model")
    parser.add_argument("--n", type=int, default=10_000, help="draws per certificate")
    parser.add_argument("--alpha", type=float, default=0.001, help="failure probability")
    parser.add_argument("--chains", type=int, default=400, help="chains, and draws audited")
    options = parser.parse_args()
    torch.set_num_threads(1)
    numbers = {"n": options.n, "alpha": options.alpha, "chains": options.chains}
    result: dict = {
        "deqcert": deqcert.__version__,
        "torch": torch.__version__,
        **numbers,
        "trials": options.trials,
        "sigma": SIGMA,
        "probability": PROBABILITY,
        "true_radius_over_sigma": margin_for(PROBABILITY, SIGMA) / SIGMA,
        "drifts": {},
    }
    # The batch audited as published is the second: a burst that spares it comes later still.
    for name, drift in drifts(first=5).items():
        trials = track(range(options.trials), description=name)
        rules = tallies(drift, iter(trials), **numbers)
        result["drifts"][name] = {
            "claim": drift.claim,
            "rules": {rule: asdict(tally) for rule, tally in rules.items()},
        }
    os.makedirs(options.out.parent, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
