"""Whether the counts, the audit, the plan and the shares of alpha of one record fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deqcert.checks.problems import Place, Problem
from deqcert.smoothing.proved import EXACT
from deqcert.solvers import SolverSpec
from deqcert.stats import JointRegion
from deqcert.stats.forecast import WEIGHTS

GUARANTEE = {
    ("standard", "standard"): "standard",
    ("standard", "abstain"): "standard",
    ("srs", "srs"): "audited",
    ("srs", "standard"): "standard",
    ("srs", "abstain"): "audited",
    ("srs-paper", "srs-paper"): "none",
    ("srs-paper", "abstain"): "none",
    ("proved", "proved"): "proved",
    ("proved", "abstain"): "proved",
}
"""The guarantee a method gives where its plan says so."""


def selected_class(record: Mapping[str, Any]) -> int | None:
    """Return the class the selection draws chose: the most frequent, the first among equals."""
    counts = record["counts0"]
    return counts.index(max(counts)) if any(counts) else None


def planned(record: Mapping[str, Any]) -> str:
    """Return the method the plan of this record settled on."""
    return str(record["plan"].get("method"))


def is_serialized(record: Mapping[str, Any]) -> bool:
    """Whether the estimation labels come from warm solves."""
    return planned(record) in ("srs", "srs-paper", "proved")


def stopped(record: Mapping[str, Any]) -> bool:
    """Whether the image was given up for its time limit, before anything was known about it."""
    plan = record.get("plan", {})  # deterministic records have none
    return plan.get("method") == "abstain" and "time_limit" in plan


def check_counts(place: Place, record: Mapping[str, Any], audit: Any) -> Iterator[Problem]:
    """Yield what contradicts itself in one record of the right schema.

    Args:
        place: Where the record is.
        record: The record.
        audit: The run's setting of that name.
    """
    yield from _check_totals(place, record)
    if len(record["counts"]) != len(record["counts0"]):
        why = "both count the same classes"
        yield place.problem("counts", len(record["counts"]), len(record["counts0"]), why)
        return
    yield from _check_outcome(place, record)
    expected = GUARANTEE.get((record["method"], planned(record)))
    if expected is None:
        why = "no such plan belongs to this method, so its guarantee cannot be judged"
        options = [plan for method, plan in GUARANTEE if method == record["method"]]
        yield place.problem("plan.method", planned(record), " or ".join(options) or "?", why)
        return
    if record["method"] == "srs" and isinstance(audit, (int, float)) and any(record["counts0"]):
        why = "an audit of a given size was asked for, which leaves the plan no other way"
        yield from place.expect("plan.method", planned(record), "srs", why)
    why = (
        f"the method {record['method']} as planned here gives the guarantee {expected!r}, no other"
    )
    yield from place.expect("guarantee", record["guarantee"], expected, why)
    yield from _check_shares(place, record)
    yield from _check_serialization(place, record)
    if record["method"] == "standard" and planned(record) == "abstain" and not stopped(record):
        why = "independent draws are given up for a time limit alone, which belongs on record"
        yield place.problem("plan.time_limit", None, "seconds", why)
    if planned(record) == "abstain":
        yield from _check_given_up(place, record)
    else:
        yield from _check_count(place, record)
        yield from _check_audit(place, record, audit)
    yield from _check_spent(place, record)


def _check_totals(place: Place, record: Mapping[str, Any]) -> Iterator[Problem]:
    for name, total in (("counts0", "n0"), ("counts", "n")):
        if sum(record[name]) > record[total]:
            why = f"there were {record[total]} draws: more labels than draws raise the bound"
            yield place.problem(
                name, f"{sum(record[name])} in all", f"at most {record[total]}", why
            )


def _check_outcome(place: Place, record: Mapping[str, Any]) -> Iterator[Problem]:
    selected = selected_class(record) if record["radius"] > 0 else None
    why = "the certificate is about the class that the selection draws chose, or about none"
    yield from place.expect("prediction", record["prediction"], selected, why)
    yield from check_verdict(place, record)


def check_verdict(place: Place, record: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a `correct` or a `status` that does not follow from prediction and label."""
    correct = record["prediction"] is not None and record["prediction"] == record["label"]
    why = "certified accuracy counts the records that are correct"
    yield from place.expect("correct", record["correct"], correct, why)
    status = "abstained" if record["prediction"] is None else "certified"
    why = "the status says whether a class is certified"
    yield from place.expect("status", record["status"], status, why)


def _check_shares(place: Place, record: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield shares of alpha that are not those of the rule."""
    alpha, count, audit = record["alpha"], record["alpha_count"], record["alpha_audit"]
    joint = record["plan"].get("rule") == "theorem-a-joint"
    if planned(record) == "abstain" or joint:
        shares: tuple[Any, Any] = (None, None)
    elif record["method"] == "srs-paper":
        shares = (alpha / 2, alpha / 2)
    else:  # of a plan this is Theorem A after a census
        shares = (alpha, 0.0)
    why = "more of alpha on one side is a larger bound at a failure probability not stated"
    yield from place.expect("alpha_count", count, shares[0], why)
    yield from place.expect("alpha_audit", audit, shares[1], why)


def _check_serialization(place: Place, record: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield solvers of serialized draws where there are none, and the other way round."""
    for name in ("serial", "warmup", "start", "chains"):
        if (record[name] is not None) != is_serialized(record):
            expected = "a value" if is_serialized(record) else None
            why = "independent and serialized labels are counted by different rules"
            yield place.problem(name, record[name], expected, why)


def _check_given_up(place: Place, record: Mapping[str, Any]) -> Iterator[Problem]:
    why = "the plan gave the image up before any estimation draw"
    yield from place.expect("counts", sum(record["counts"]), 0, why)
    yield from place.expect("count", record["count"], 0, why)
    yield from place.expect("audit", record["audit"], None, why)
    if stopped(record):
        limit = record["plan"]["time_limit"]
        if type(limit) not in (int, float) or not limit > 0:
            why = "a time limit is a number of seconds"
            yield place.problem("plan.time_limit", limit, "a number > 0", why)
        why = "of an image given up for its time limit nothing is known"
        yield from place.expect("counts0", sum(record["counts0"]), 0, why)


def _check_count(place: Place, record: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a credited count that is not what the labels and the audit leave."""
    selected = selected_class(record)
    count = 0
    if selected is not None:
        count = record["counts"][selected]
        if planned(record) == "srs" and record["audit"] is not None:
            count -= record["audit"]["disagreements"]
    if planned(record) == "proved":
        why = "the draws that no bound decided count for no class (THEORY 4)"
        share = 1.0 - sum(record["counts"]) / record["n"]
        yield from place.expect(
            "plan.unproved_share", record["plan"].get("unproved_share"), share, why
        )
    why = "the draws credited are those labelled with the class, less the audited disagreements"
    yield from place.expect("count", record["count"], count, why)


def _check_audit(place: Place, record: Mapping[str, Any], setting: Any) -> Iterator[Problem]:
    audit, selected = record["audit"], selected_class(record)
    if planned(record) not in ("srs", "srs-paper"):
        why = "independent and proved labels have no audit"
        yield from place.expect("audit", audit, None, why)
        return
    if audit is None:
        why = "serialized labels prove nothing without an audit (THEORY 3)"
        yield place.problem("audit", None, "a table", why)
        return
    claimed = record["counts"][selected] if selected is not None else 0
    why = "the population is every draw given to the class: a smaller one hides labels from audits"
    yield from place.expect("audit.population", audit["population"], claimed, why)
    if not audit["disagreements"] <= audit["drawn"] <= audit["population"]:
        why = "disagreements are found among the audited draws, and those in the population"
        recorded = (audit["disagreements"], audit["drawn"], audit["population"])
        rule = "disagreements <= drawn <= population"
        yield place.problem("audit", recorded, rule, why)
    yield from (
        _check_plan(place, record, setting)
        if planned(record) == "srs"
        else _check_published(place, record, setting)
    )


def _check_plan(place: Place, record: Mapping[str, Any], setting: Any) -> Iterator[Problem]:
    """Yield what was not carried out as planned, or planned otherwise than plans are made."""
    plan, audit = record["plan"], record["audit"]
    size = plan.get("audit")
    if size != "all" and (type(size) is not int or size < 1):
        why = "the size of the audit is fixed before the run (THEORY 3)"
        yield place.problem("plan.audit", size, "a count >= 1, or all", why)
        return
    if type(setting) is int:
        asked = "all" if setting == record["n"] else setting
        why = "an audit of this size was asked for"
        yield from place.expect("plan.audit", size, asked, why)
    drawn = audit["population"] if size == "all" else min(size, audit["population"])
    why = "planned but unaudited draws would have to count as disagreements (THEORY 3)"
    yield from place.expect("audit.drawn", audit["drawn"], drawn, why)
    if plan.get("rule") == "theorem-a":
        why = "of a part of the draws alpha is shared by a region (Theorem A')"
        yield from place.expect("plan.audit", size, "all", why)
    elif plan.get("rule") != "theorem-a-joint":
        why = "the bound is that of the rule"
        yield place.problem("plan.rule", plan.get("rule"), "theorem-a or theorem-a-joint", why)
    if plan.get("rule") == "theorem-a-joint":
        why = "the region must be one of those a plan chooses from, beforehand (Theorem A')"
        if plan.get("weight") not in WEIGHTS:
            yield place.problem("plan.weight", plan.get("weight"), f"one of {WEIGHTS}", why)
        yield from place.expect("plan.strip", plan.get("strip"), JointRegion.strip, why)


def _check_published(place: Place, record: Mapping[str, Any], setting: Any) -> Iterator[Problem]:
    """Yield audits larger than those of the published rule."""
    n = record["n"]
    most = 400 if isinstance(setting, str) else setting
    most = round(most * n) if isinstance(most, float) else most
    first = min(record["chains"] or n, n - 1)
    most = min(most, n - first)
    if record["audit"]["drawn"] > most:
        why = "the published rule checks the draws that follow the first batch, no more"
        yield place.problem("audit.drawn", record["audit"]["drawn"], f"at most {most}", why)


def _check_spent(place: Place, record: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield costs and solver statistics that no run could have."""
    names = ("reference.solver", "serial", "warmup")
    texts = (record["reference"]["solver"], record["serial"], record["warmup"])
    try:
        specs = {
            name: SolverSpec.parse(text)
            for name, text in zip(names, texts, strict=True)
            if text not in (None, EXACT)
        }
    except (ValueError, LookupError) as error:
        why = "the classifier of the certificate is unknown"
        yield place.problem("reference.solver", texts, str(error), why)
        return
    # Proved labels given up in the selection name no solver at all.
    longest = max((spec.max_steps for spec in specs.values()), default=record["cell_evaluations"])
    for name in ("steps", "residual"):
        values = [v for _, v in sorted(record[name].items(), key=lambda item: float(item[0]))]
        known = [v for v in values if v is not None]
        if known != sorted(known):
            why = "quantiles never fall"
            yield place.problem(name, values, sorted(known), why)
    if max(record["steps"].values(), default=0) > longest:
        why = "no solver of this record takes so many steps"
        yield place.problem("steps", max(record["steps"].values()), f"at most {longest}", why)
    for name in ("steps", "residual"):
        if planned(record) != "abstain" and not record[name]:
            why = "the estimation's solves left no trace"
            yield place.problem(name, {}, "quantiles", why)
    yield from _check_cost(place, record, longest)


def _check_cost(place: Place, record: Mapping[str, Any], longest: int) -> Iterator[Problem]:
    cost, draws = record["cell_evaluations"], record["n0"] + record["n"]
    # Each draw may be solved cold and warm, a few times over, and a fit take some rows besides.
    low, high = 0, 6 * (draws + 400) * longest
    if stopped(record):
        high = 0  # what the worker had spent went with it
    elif record["method"] == "standard":
        low, high = draws, draws * longest
    if not low <= cost <= high:
        why = "so many draws cost more than that, or less"
        yield place.problem("cell_evaluations", cost, f"in [{low}, {high}]", why)
    if record["unconverged"] > cost:
        why = "every solve that fails or misses its tolerance has taken a step"
        yield place.problem("unconverged", record["unconverged"], f"at most {cost}", why)
