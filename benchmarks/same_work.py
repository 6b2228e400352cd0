"""The same work by ours and by another implementation, on the same weights, in turns.

    python benchmarks/same_work.py --beside "COMMAND" --out benchmarks/results/same_work.json

`beside.py` says what COMMAND must do. Work is standard smoothing with 30 Anderson steps. Every
round certifies one image with `--n` estimation draws on either side, one after the other;
`--rounds` of them make at least 1,000 draws, and seconds are scaled from there to n = 10,000 (both
grow in proportion to the draws; `cost_against_n.py` measures that of ours). Ours runs once as the
very same classifier (float32) and, where `--precisions` says so, as another one. With `--srs` the
other implementation's own serialized mode is timed too; its cell evaluations grow by the same
number with every batch, so that two sizes give those at n = 10,000.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from beside import Beside
from console import console, track
from contest import (
    Work,
    agreement,
    certifier,
    certify,
    computed_by,
    load,
    sampler,
    use_threads,
)
from ledger import Ledger

import deqcert as dc
from deqcert.errors import ConfigurationError
from deqcert.models import MDEQ

FULL = Work(n0=100, n=10_000)
_BEFORE_RECORDED = 5


def round_of(
    who: dict[str, dc.Certifier], other: Beside, example: dc.Example, work: Work, tolerance: float
) -> dict[str, Any]:
    """Certify one image by every one of ours and by the other."""
    found = {
        name: {**certify(ours, example.image, example.index, work.seed), **computed_by(ours)}
        for name, ours in who.items()
    }
    found["other"] = other.certify(
        example.image, method="standard", tolerance=tolerance, **asdict(work)
    )
    for row in found.values():
        row["ms_per_draw"] = 1000 * row["seconds"] / work.draws
    return found


def summary(rounds: list[dict[str, Any]], draws: int) -> dict[str, Any]:
    """Return medians, and the other's time over ours round by round."""
    out: dict[str, Any] = {"timed_draws": draws}
    for name in rounds[0]:
        each = [r[name]["ms_per_draw"] for r in rounds]
        row: dict[str, Any] = {
            "ms_per_draw": statistics.median(each),
            "scaled_seconds": statistics.median(each) * FULL.draws / 1000,
            "cell_evaluations_per_draw": rounds[0][name]["cell_evaluations"] * len(rounds) / draws,
        }
        if name != "other":
            ratios = [r["other"]["seconds"] / r[name]["seconds"] for r in rounds]
            row["other_over_ours"] = statistics.median(ratios)
            row["other_over_ours_range"] = [min(ratios), max(ratios)]
        out[name] = row
    return out


def serialized(other: Beside, example: dc.Example, work: Work) -> dict[str, Any]:
    """Time the other's serialized mode at two sizes, and scale that to n = 10,000."""
    batch = work.batch
    runs = [
        other.certify(example.image, method="srs", **asdict(replace(work, n=k * batch)))
        for k in (3, 6)
    ]
    per_batch = (runs[1]["cell_evaluations"] - runs[0]["cell_evaluations"]) / 3
    evaluations = runs[0]["cell_evaluations"] + per_batch * (FULL.n / batch - 3)
    each = sum(r["seconds"] for r in runs) / sum(r["cell_evaluations"] for r in runs)
    return {
        "runs": runs,
        "cell_evaluations_scaled": evaluations,
        "scaled_seconds": each * evaluations,
    }


def measure(options: argparse.Namespace, ledger: Ledger, name: str) -> None:
    """Measure one model with every number of threads."""
    model = load(name)
    data = dc.load_data(options.data, split="test")
    work = Work(
        sigma=options.sigma,
        n0=options.n0,
        n=options.n,
        batch=options.batch,
        steps=options.steps,
    )
    use_threads(max(options.threads))
    who = of_precisions(options, name, model, work)
    examples = [data[place * options.skip] for place in range(options.rounds)]
    for threads in options.threads:
        use_threads(threads)
        with Beside(options.beside) as other:  # meets the same processors
            ledger.note("beside", other.facts)
            other.load(model, threads=threads)
            key = key_of(name, threads, options.device)
            with_threads(options, ledger, key, who, other, examples, work)


def of_precisions(
    options: argparse.Namespace, name: str, model: MDEQ, work: Work
) -> dict[str, dc.Certifier]:
    """Return a certifier for each precision; of several, one that is refused is left out."""
    who: dict[str, dc.Certifier] = {}
    for precision in options.precisions:
        try:
            ours = certifier(model, work, dtype=precision, device=options.device)
        except ConfigurationError as refused:
            if len(options.precisions) == 1:
                raise
            console.print(f"{name}: {precision} is left out: {refused}")
        else:
            who[f"ours {precision}"] = ours
    return who


def key_of(name: str, threads: int, device: str) -> str:
    """Return the key of one model's results with a number of threads, or on a GPU."""
    threaded = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"{name}, {threaded if device == 'cpu' else device}"


def with_threads(
    options: argparse.Namespace,
    ledger: Ledger,
    key: str,
    who: dict[str, dc.Certifier],
    other: Beside,
    examples: list[dc.Example],
    work: Work,
) -> None:
    """Measure all rounds under one key, and sum them up."""
    same_labels(options, ledger, key, who, other, examples[0], work)
    for place, example in enumerate(track(examples, key)):
        ledger.measure(
            f"{key}, round {place}",
            lambda e=example: round_of(who, other, e, work, options.tolerance),
        )
    if options.srs:
        ledger.measure(f"{key}, serialized", lambda: serialized(other, examples[0], work))
    rounds = [ledger.results[f"{key}, round {k}"] for k in range(options.rounds)]
    ledger.note(key, summary(rounds, work.draws * options.rounds))
    show(key, ledger.content[key])


def same_labels(
    options: argparse.Namespace,
    ledger: Ledger,
    key: str,
    who: dict[str, dc.Certifier],
    other: Beside,
    example: dc.Example,
    work: Work,
) -> None:
    """Label some noisy images on either side, always: it warms up.

    On a GPU certificates of some images are left out, too: the first ones compile kernels and
    record solves.
    """
    ours = next(iter(who.values()))
    noisy = sampler(ours, example.image, 0, 1).noisy("estimation", range(options.labels))
    theirs = other.labels(noisy, steps=work.steps, tolerance=0.0, batch=work.batch)["labels"]
    found = agreement(ours, noisy, theirs)
    for one in who.values():
        one.classifier.labelled(noisy)
    ledger.measure(f"{key}, labels", lambda: found)
    if options.device != "cpu":
        round_of(who, other, example, work, options.tolerance)
        for one in who.values():
            for _ in range(_BEFORE_RECORDED):
                certify(one, example.image, example.index, work.seed)


def done(options: argparse.Namespace, ledger: Ledger, key: str) -> bool:
    """Return whether nothing is left to measure under this key."""
    wanted = [f"{key}, round {k}" for k in range(options.rounds)] + [f"{key}, labels"]
    wanted += [f"{key}, serialized"] if options.srs else []
    return key in ledger.content and all(k in ledger.results for k in wanted)


def show(key: str, found: dict[str, Any]) -> None:
    """Print one line for each side."""
    for name, row in found.items():
        if isinstance(row, dict):
            ratio = f", other {row['other_over_ours']:.2f}x" if "other_over_ours" in row else ""
            console.print(f"{key}: {name} {row['ms_per_draw']:.2f} ms per draw{ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--beside", required=True, help="command of the other implementation")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--models", nargs="+", default=["mdeq-small-s050", "mdeq-large:random"])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu", help="where ours computes, as the other does")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--n", type=int, default=400, help="estimation draws of a round")
    parser.add_argument("--n0", type=int, default=100, help="selection draws of a round")
    parser.add_argument("--steps", type=int, default=30, help="Anderson steps of a solve")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--labels", type=int, default=400, help="noisy images labelled by both")
    parser.add_argument("--batch", type=int, default=400)
    parser.add_argument("--skip", type=int, default=200, help="every so many-th test image")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="of the other's solver; 0: all 30 steps"
    )
    parser.add_argument("--srs", action="store_true", help="time its serialized mode too")
    parser.add_argument("--again", action="store_true", help="measure what is there once more")
    options = parser.parse_args()
    settings = {k: v for k, v in vars(options).items() if k not in _NOT_SETTINGS}
    ledger = Ledger(options.out, settings, again=options.again, device=options.device)
    for name in options.models:
        keys = [key_of(name, threads, options.device) for threads in options.threads]
        if not all(done(options, ledger, key) for key in keys):
            measure(options, ledger, name)


_NOT_SETTINGS = ("beside", "out", "again", "models", "threads", "srs", "device")

if __name__ == "__main__":
    main()
