"""What `steps_per_draw.py` measured, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from console import markdown
from scipy.stats import bootstrap

from deqcert.solvers import SolverSpec
from deqcert.stats import plan_audit

SETTLED = "linear, solved on where unclear"
TOLERANCES = (0.2, 0.1, 0.05)
STABLE = tuple((same, lead) for same in (1, 2) for lead in (0.25, 0.5, 1.0))
RANGES = ((0.0, 0.6), (0.6, 0.8), (0.8, 0.95), (0.95, 0.995), (0.995, 1.01))
N, ALPHA = 10_000, 0.001


def report(results: dict[str, Any]) -> str:
    """Return all tables of all models."""
    parts = []
    for known in dict.fromkeys(key.split("|")[0] for key in results):
        facts = results[f"{known}|model"]
        few = _records(results, f"{known}|few|")
        serial = _records(results, f"{known}|serial|")
        parts.append(
            f"#### {known}, sigma {facts['sigma']:g}, own solver {facts['own']}, "
            f"a classification costs {facts['head']:.2f} cell evaluations\n\n"
            f"Few steps, {len(few)} images:\n\n{_few_table(few)}\n"
            f"Serialized labels, {len(serial)} images:\n\n{_start_table(serial)}\n"
            f"Planned cost of n = 10,000 by p, cell evaluations a draw:\n\n"
            f"{_plan_table(serial, facts['own'])}"
        )
    return "\n".join(parts)


def _records(results: dict[str, Any], prefix: str) -> list[dict[str, Any]]:
    return [value for key, value in results.items() if key.startswith(prefix)]


def outcomes(
    *,
    truth: int,
    reference: np.ndarray,  # (copies,)
    labels: np.ndarray,  # (steps, copies)
    leads: np.ndarray,  # (steps, copies)
    residuals: np.ndarray,  # (steps, copies)
    fitted: np.ndarray,  # (0 and more steps, copies), from the fitted start
) -> dict[str, str]:
    """Return, by rule, the copies of one image that are right, and that differ from the reference,
    and the evaluations and classifications of all copies: four numbers with the copies as fifth.
    """  # fmt: skip
    copies = len(reference)
    found = {"anderson:30": (int((reference == truth).sum()), 0, 30 * copies, copies)}
    for name, stops, first in _rules(labels, leads, residuals):
        stops[-1] = True
        at = stops.argmax(axis=0)  # the step, from 0, at which each copy stops
        chosen = labels[at, np.arange(copies)]
        asked = np.maximum(at + 2 - first, 1) if first else np.ones(copies)
        right, wrong = int((chosen == truth).sum()), int((chosen != reference).sum())
        found[name] = (right, wrong, int((at + 1).sum()), int(asked.sum()))
    for k, chosen in enumerate(fitted):
        right, wrong = int((chosen == truth).sum()), int((chosen != reference).sum())
        found[f"fitted start, picard:{k}"] = (right, wrong, k * copies, copies)
    return {name: " ".join(map(str, (*v, copies))) for name, v in found.items()}


def _few_table(records: list[dict[str, str]]) -> str:
    """Return accuracy, its difference to the reference, disagreement and cost by rule."""
    if not records:
        return ""
    body = []
    base = _numbers(records, "anderson:30")
    for name in records[0]:
        found = _numbers(records, name)  # (images, 5)
        right, wrong, evaluations, asked, copies = found.sum(axis=0)
        gain = 100 * (found[:, 0] - base[:, 0]) / found[:, 4]
        low, high = _interval(gain)
        body.append(
            [
                name,
                f"{evaluations / copies:.2f}",
                f"{asked / copies:.2f}",
                f"{100 * right / copies:.1f}",
                f"{gain.mean():+.2f} [{low:+.2f}, {high:+.2f}]",
                f"{100 * wrong / copies:.2f}",
            ]
        )
    head = ["solver", "evaluations", "classifications", "accuracy %", "difference, points (95 %)"]
    return markdown([*head, "disagreement %"], body)


def _numbers(records: list[dict[str, str]], name: str) -> np.ndarray:  # (images, 5)
    return np.array([[int(v) for v in r[name].split()] for r in records])


def _rules(
    labels: np.ndarray, leads: np.ndarray, residuals: np.ndarray
) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield names, where rows may stop (steps, copies), and the first step classified, or 0."""
    step = np.arange(1, len(labels) + 1)[:, None]
    for k in range(1, len(labels) + 1):
        yield f"picard:{k}", np.broadcast_to(step >= k, labels.shape).copy(), 0
    for tol in TOLERANCES:
        yield f"picard:8:{tol:g}", residuals <= tol, 0
    repeats = np.zeros(labels.shape, dtype=bool)
    repeats[1:] = labels[1:] == labels[:-1]
    for same, lead in STABLE:
        # The first step from a zero start is no candidate: it was hardly trained for anything.
        stable = (repeats if same == 2 else step >= 2) & (leads > lead)
        yield f"picard:8, stable {same}, lead {lead:g}", stable, 3 - same


def _interval(gain: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over images."""
    if len(gain) < 2 or np.ptp(gain) == 0:
        return float(gain.mean()), float(gain.mean())
    found = bootstrap((gain,), np.mean, rng=0, method="percentile").confidence_interval
    return float(found.low), float(found.high)


def _start_table(records: list[dict[str, Any]]) -> str:
    """Return the disagreement with 30 Anderson steps by start and steps."""
    if not records:
        return ""
    names = list(records[0]["starts"])
    rules = list(dict.fromkeys(name.split(", picard:")[0] for name in names))
    body = []
    for rule in rules:
        if rule in names:  # one number of steps
            cost = np.mean([r["starts"][rule]["cost"] for r in records])
            body.append([rule, f"{_wrong(records, rule)} at {cost:.2f}", *[""] * 4])
        else:
            body.append([rule, *(_wrong(records, f"{rule}, picard:{k}") for k in range(5))])
    return markdown(["disagreement %", *(f"{k} evaluations" for k in range(5))], body)


def _wrong(records: list[dict[str, Any]], name: str) -> str:
    return f"{100 * np.mean([r['starts'][name]['wrong'] for r in records]):.2f}"


def _plan_table(records: list[dict[str, Any]], own: str) -> str:
    """Return what the planner expects each way to cost, by class probability."""
    short = SolverSpec.parse(own).max_steps
    ways: list[tuple[str, Callable[[dict[str, Any]], float]]] = [
        (f"anderson:30, {name}", lambda r, name=name: _planned(r, r["starts"][name], 30))
        for name in ("previous, anderson:3", "previous, picard:2", SETTLED)
    ]
    ways += [
        (f"{own}, {name}", lambda r, name=name: _planned(r, r["own"][name], short))
        for name in ("previous, picard:1", SETTLED)
    ]
    body = []
    for low, high in RANGES:
        chosen = [r for r in records if low <= r["p"] < high]
        if not chosen:
            continue
        cells = [f"{np.mean([way(r) for r in chosen]):.2f}" for _, way in ways]
        mean = np.mean([r["p"] for r in chosen])
        body.append([f"{low:g} to {min(high, 1):g} ({mean:.2f})", str(len(chosen)), "30",
                     *cells[:3], str(short), *cells[3:]])  # fmt: skip
    head = ["p (mean)", "images", "anderson:30, standard", *(name for name, _ in ways[:3])]
    return markdown([*head, f"{own}, standard", *(name for name, _ in ways[3:])], body)


def _planned(record: dict[str, Any], found: dict[str, Any], reference: int) -> float:
    """Return the expected cell evaluations a draw, with the draws at hand as the pilot."""
    claimed, wrong, missed = found["counts"]
    plan = plan_audit(
        n0=record["draws"],
        count0=claimed - wrong + missed,
        pilot_claimed=claimed,
        pilot_disagreed=wrong,
        pilot_missed=missed,
        n=N,
        alpha=ALPHA,
        cost_ratio=max(found["cost"], 1e-3) / reference,
    )
    return plan.expected_cost * reference / N
