"""Every run in words: what it claims, of which classifier, on what assumptions, how often it fails.

THEORY.md states and proves what is said here; its sections are named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deqcert.certificate import DETERMINISTIC
from deqcert.results.cohen import PUBLISHED
from deqcert.results.html.outcomes import reasons
from deqcert.results.html.runs import ReportedRun
from deqcert.results.summary import LINF, Record, false_at_most


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One guarantee in words.

    Attributes:
        badge: A word or two.
        claim: What holds, and with what probability.
        assumed: What it rests on, one sentence each.
        source: Where it is stated and proved.
    """

    badge: str
    claim: str
    assumed: tuple[str, ...]
    source: str


_CLASSIFIER = (
    "The classifier named below is the one that is deployed: same weights, solver, start and "
    "precision."
)
_FIXED = (
    "The class came from other draws than those that are counted; sigma, n and alpha were fixed "
    "beforehand."
)
_MARGIN = (
    "Labels come from floating-point solves; a draw counts only if its lead exceeds the numeric "
    "margin, which is measured, not proved."
)
_PROBABLY = (
    "For each certified image: with probability at least 1 - alpha over the noise{extra}, the "
    "smoothed classifier returns the certified class for every image closer than the radius in L2."
)

STATEMENTS = {
    "standard": Statement(
        badge="guaranteed",
        claim=_PROBABLY.format(extra=""),
        assumed=(
            "The n draws are independent, and each label is that of an independent cold solve.",
            _FIXED,
            _MARGIN,
            _CLASSIFIER,
        ),
        source="Cohen, Rosenfeld, Kolter 2019; docs/theory.md, 2",
    ),
    "audited": Statement(
        badge="guaranteed by an audit",
        claim=_PROBABLY.format(extra=" and the choice of the audited draws"),
        assumed=(
            "The audited draws were chosen uniformly and independently of the run, after it; their "
            "cold labels were computed and compared.",
            "Nothing is assumed of the serialized labels: they may depend on anything else.",
            _FIXED + " So were the plan of the audit and the shares of alpha.",
            _MARGIN,
            _CLASSIFIER,
        ),
        source="Theorems A and A'; docs/theory.md, 3",
    ),
    "proved": Statement(
        badge="guaranteed by proofs",
        claim=_PROBABLY.format(extra=""),
        assumed=(
            "The model is a monotone DEQ, so that its equilibrium exists and is unique; the "
            "classifier is the label at that exact equilibrium.",
            "A draw counts only if its label is proved, rounding included.",
            _FIXED,
        ),
        source="Winston, Kolter 2020; docs/theory.md, 4",
    ),
    PUBLISHED: Statement(
        badge="as published",
        claim=(
            "A log that others published, shown as it is. Nothing of it was checked here; radii "
            "may be rounded to nearest, which can overstate them."
        ),
        assumed=("Its images are taken to be those of the other runs.",),
        source="docs/report.md",
    ),
    "none": Statement(
        badge="no guarantee",
        claim=(
            "Nothing is certified. The published rule of serialized random smoothing is repeated "
            "here for comparison; its radii may be larger than the truth."
        ),
        assumed=(
            "The checked draws are not random but the first ones after the warm-up, and serialized "
            "labels are not independent: no bound used here applies to them.",
        ),
        source="Gao, Hou, Xu, Liu 2024, Theorem 3.1; docs/theory.md, 3; docs/theory/published.md",
    ),
}
_DETERMINISTIC = Statement(
    badge="guaranteed, no chance involved",
    claim=(
        "For each certified image: the class at the exact equilibrium is the certified one for "
        "every {images} closer than the radius in {norm}. No noise, no probability of failure."
    ),
    assumed=(
        "The model is a monotone DEQ; its constants are proved upper and lower bounds of the very "
        "operator that runs, rounding included.",
        "The claim is about the model's own class, not about a smoothed classifier.",
    ),
    source="docs/theory.md, 6",
)


def statements(run: ReportedRun) -> list[tuple[str, int, Statement]]:
    """Return the guarantees that occur in a run, with how many images have which."""
    found = Counter(str(row["guarantee"]) for row in run.records)
    return [(name, count, _statement(name, run)) for name, count in sorted(found.items())]


def _statement(guarantee: str, run: ReportedRun) -> Statement:
    if guarantee != DETERMINISTIC:
        return STATEMENTS[guarantee]
    pixels = run.configuration.get("domain") == "pixels"
    claim = _DETERMINISTIC.claim.format(
        images="image with pixels in [0, 1]" if pixels else "image", norm=run.norm
    )
    return Statement(
        badge=_DETERMINISTIC.badge,
        claim=claim,
        assumed=_DETERMINISTIC.assumed,
        source=_DETERMINISTIC.source,
    )


def classifier(run: ReportedRun) -> str:
    """Say which classifier the claims are about."""
    if not run.records or run.guarantee == PUBLISHED:
        return ""
    found = run.records[0]["reference"]
    name = next((str(f["model"]) for f in run.environments if f.get("model")), "the model")
    exact = found["precision"] == "exact"
    solved = (
        "at its exact equilibrium"
        if exact
        else f"solved by {found['solver']} in {found['precision']}, numeric margin "
        f"{found['margin']:.3g}"
    )
    return f"{name} {solved}; weights {str(found['weights_digest'])[:12]}…"


def progress(run: ReportedRun, images: int | None) -> str:
    """Say how far the run is."""
    done = len(run.records)
    if images is not None and images > done:
        return f"{done:,} of {images:,} images so far" if done else f"none of {images:,} images yet"
    return f"{done:,} images" if done != 1 else "1 image"


def failures(run: ReportedRun) -> str:
    """Say how many false certificates alpha allows over the whole run."""
    summary = run.summary
    if summary is None:
        return ""
    if run.guarantee == PUBLISHED:
        return "As published; nothing was checked here."
    if not run.claims:
        return "Without a guarantee nothing bounds how many of its radii are false."
    if not summary.alpha:
        return "None of its certificates can be false."
    expected = summary.alpha * summary.images
    most = false_at_most(summary.images, alpha=summary.alpha, rho=summary.rho)
    return (
        f"alpha = {summary.alpha:g} is per image. Over {summary.images:,} images at most "
        f"{expected:.3g} false certificates are expected, and with {100 * (1 - summary.rho):g} % "
        f"confidence there are no more than {most:,}."
    )


def plans(run: ReportedRun) -> list[tuple[str, int]]:
    """Return how the images were certified, with how many, where plans differ."""
    found = Counter(plan_name(row) for row in run.records)
    return found.most_common()


def plan_name(record: Record) -> str:
    """Say in a few words how one image was certified."""
    if record["guarantee"] == DETERMINISTIC:
        return str(record["method"])
    plan = record.get("plan") or {}
    method = str(plan.get("method", record["method"]))
    if method == "srs":
        return "audit of all" if plan.get("audit") == "all" else "audit"
    return {"standard": "independent", "abstain": "given up"}.get(method, method)


def abstention_reasons(run: ReportedRun) -> list[str]:
    """Say why images were given up."""
    return [f"{count:,} since {reason}" for reason, count in reasons(run)]


def flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as (dotted name, value in words)."""
    rows: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            rows.append((f"{prefix}{key}", ", ".join(map(str, value))))
        else:
            rows.append((f"{prefix}{key}", "-" if value is None else str(value)))
    return rows


def norm_in_words(norm: str) -> str:
    """Say what a radius in this norm means."""
    if norm == LINF:
        return "Every pixel changes by less than r; pixels lie in [0, 1]."
    return "The change of all pixels together has a Euclidean norm below r; pixels lie in [0, 1]."
