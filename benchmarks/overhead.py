"""What a certificate costs beyond the cell evaluations it is made of.

    python benchmarks/overhead.py --out benchmarks/results/overhead.json --threads 1

Per model, precision, method and solver three things run in turn, in one process, `--repeats` times:
`certify` (the bare one), the cell evaluations alone (the same numbers of rows, the same calls, each
on a state and injection that the certificate met), and the certificate with a clock around its
parts. Reported are the medians over the turns of

- ``overhead``: (certify - stem and head) / cell evaluations - 1: driver, sampling, counting and
  logging; a change of the cell's own speed by what runs in between is part of it;
- ``around``: the parts below but stem, head and the solver's own steps, added up: driver, sampling,
  counting and logging alone;
- ``whole``: certify / cell evaluations - 1, the model's stem and head with it;
- ``parts``: what the clocked certificate spent where, over its cell evaluations; of noise made by
  the background thread the wait alone costs time;
- ``padding``: rows computed beyond those asked for, over those asked for. What certifying several
  images together could save at most.

`--clock process` counts processor time of all threads instead: for a machine that is busy with
other things, where noise made in the background then counts in full.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from console import markdown, track
from contest import Work, certifier, load, use_threads
from ledger import Ledger

import deqcert as dc
from deqcert.models import EquilibriumModel, rows
from deqcert.smoothing import classifier as classifiers
from deqcert.smoothing import sampling
from deqcert.smoothing.spent import Spent
from deqcert.solvers import driver, map_tree
from deqcert.solvers.stepper import Stepper

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
DRAWS = {"mdeq-digits": 4000, "mdeq-small": 1200, "mdeq-large": 400}
SHORT = {"mdeq-digits": 1, "mdeq-small": 1, "mdeq-large": 8}
"""Draws of a model, and what they are divided by for 30 steps a draw."""
OWN_WORK = ("stem", "head", "solver step")
"""Parts that any code for the same classifier has to do."""


class Parts:
    """Clocks parts of a certificate, each without the parts inside it; main thread alone."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds: Counter[str] = Counter()
        self._inner: list[float] = []
        self._main = threading.get_ident()

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return `work`, clocked as `name`."""

        @functools.wraps(work)
        def clocked(*arguments: Any, **options: Any) -> Any:
            if threading.get_ident() != self._main:
                return work(*arguments, **options)
            self._inner.append(0.0)
            started = self.clock()
            try:
                return work(*arguments, **options)
            finally:
                spent = self.clock() - started
                self.seconds[name] += spent - self._inner.pop()
                if self._inner:
                    self._inner[-1] += spent

        return clocked

    @contextmanager
    def everywhere(self, model: EquilibriumModel) -> Iterator[None]:
        """Clock the model's methods and the rooms around them."""
        places = [
            (model, "cell", "cell"),
            (model, "first_step", "cell"),
            (model, "inject", "stem"),
            (model, "classify", "head"),
            (sampling.Sampler, "noisy", "noise"),
            (classifiers, "labels_of", "labels"),
            (Spent, "add", "counting"),
            (rows, "solve", "driver"),
            (driver, "relative_residual", "residual"),
            (driver, "finite_rows", "residual"),
            (Stepper, "advance", "solver step"),
            (classifiers, "solve_rows", "padding and cutting"),
        ]
        before = [(place, name, getattr(place, name)) for place, name, _ in places]
        for (place, name, work), (_, _, label) in zip(before, places, strict=True):
            setattr(place, name, self.timed(label, work))
        try:
            yield
        finally:
            for place, name, work in before:
                if place is model:
                    delattr(place, name)  # an attribute of the instance, over the class's method
                else:
                    setattr(place, name, work)


class Calls:
    """The cell evaluations of one certificate, to be made again alone."""

    VERBS = ("cell", "first_step")

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []  # which, of how many rows
        self._met: dict[tuple[str, int], tuple[Any, Any]] = {}
        self._within = False

    @property
    def rows(self) -> int:
        """Rows evaluated in all."""
        return sum(size for _, size in self.made)

    @contextmanager
    def recorded(self, model: EquilibriumModel) -> Iterator[None]:
        """Note the rows of every evaluation, and the first arguments of every number of rows."""
        for verb in self.VERBS:
            object.__setattr__(model, verb, self._noted(verb, getattr(model, verb)))
        try:
            yield
        finally:
            for verb in self.VERBS:
                object.__delattr__(model, verb)

    def _noted(self, verb: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(state: Any, injection: Any) -> Any:
            if self._within:  # a first step that is a plain evaluation
                return call(state, injection)
            key = verb, len(state if isinstance(state, torch.Tensor) else state[0])
            self.made.append(key)
            if key not in self._met:
                self._met[key] = map_tree(torch.clone, (state, injection))
            self._within = True
            try:
                return call(state, injection)
            finally:
                self._within = False

        return noted

    @torch.no_grad()
    def again(self, model: EquilibriumModel) -> None:
        """Evaluate the cell as often, on as many rows, in the same order."""
        state: Any = None
        before = 0
        for verb, size in self.made:
            met, injection = self._met[verb, size]
            # As a solve does, each step from what the last one gave.
            state = met if verb == "first_step" or size != before else state
            state, before = getattr(model, verb)(state, injection), size


def measure(name: str, solver: str, method: str, dtype: str, options: Any) -> dict[str, Any]:
    """Measure one setting."""
    key = name.split(":")[0].rsplit("-s0", 1)[0]
    steps = int(solver.split(":")[1])
    n = options.n or DRAWS[key] // (SHORT[key] if steps > 5 else 1)
    work = Work(n=n, batch=400, sigma=0.5)
    # A fixed share is audited, so that both methods do work in proportion to n.
    ours = certifier(load(name), work, reference=solver, method=method, dtype=dtype, audit=0.1)
    model, clock = ours.classifier.model, CLOCKS[options.clock]
    image = torch.rand(model.input_shape, generator=torch.Generator().manual_seed(0))
    calls = Calls()
    with calls.recorded(model):
        record = ours.certify(image, seed=0)  # warms up, too
    turns = [turn(ours, image, calls, clock) for _ in range(options.repeats)]
    middle = {key: statistics.median(t[key] for t in turns) for key in turns[0]}
    asked = record.cell_evaluations
    return {
        "n": n,
        "draws_per_second": (n + work.n0) / middle["certify"],
        "cell_evaluations": asked,
        **{f"{key}_seconds": middle[key] for key in ("certify", "bare")},
        "overhead": statistics.median((t["certify"] - t["ends"]) / t["bare"] - 1 for t in turns),
        "whole": statistics.median(t["certify"] / t["bare"] - 1 for t in turns),
        "parts": {k[5:]: v for k, v in middle.items() if k.startswith("part ")},
        "padding": calls.rows / asked - 1,
    }


def turn(
    ours: dc.Certifier, image: torch.Tensor, calls: Calls, clock: Callable[[], float]
) -> dict[str, float]:
    """Run the three contestants once."""
    model = ours.classifier.model
    started = clock()
    ours.certify(image, seed=0)
    whole = clock() - started
    started = clock()
    calls.again(model)
    bare = clock() - started
    parts = Parts(clock)
    with parts.everywhere(model):
        parts.timed("rest", ours.certify)(image, seed=0)
    cell = parts.seconds.pop("cell")
    found = {f"part {name}": seconds / cell for name, seconds in parts.seconds.items()}
    ends = parts.seconds["stem"] + parts.seconds["head"]
    return {"certify": whole, "bare": bare, "ends": ends, **found}


def show(results: dict[str, dict[str, Any]]) -> str:
    """Return the table of all settings."""
    names = sorted({part for result in results.values() for part in result["parts"]})
    head = ["setting", "around", "overhead", "with stem and head", "padding", *names]
    body = [
        [
            key,
            f"{around(result['parts']):.1%}",
            *(f"{result[column]:.1%}" for column in ("overhead", "whole", "padding")),
            *(f"{result['parts'].get(name, 0):.1%}" for name in names),
        ]
        for key, result in results.items()
    ]
    return markdown(head, body)


def around(parts: dict[str, float]) -> float:
    """Return what is neither the model's work nor the solver's own arithmetic."""
    return sum(share for name, share in parts.items() if name not in OWN_WORK)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    models = ["mdeq-digits-s050", "mdeq-small-s050", "mdeq-large:random"]
    parser.add_argument("--models", nargs="+", default=models)
    parser.add_argument("--solvers", nargs="+", default=["picard:3", "anderson:30"])
    parser.add_argument("--methods", nargs="+", default=["standard", "srs"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--n", type=int, help="draws; by default as many as fit the model")
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--background", action="store_true", help="let noise have its own core")
    parser.add_argument("--again", action="store_true", help="measure what is there once more")
    options = parser.parse_args()
    if options.background:
        torch.set_num_threads(options.threads)
    else:
        use_threads(options.threads)
    fixed = ("n", "repeats", "clock", "threads", "background")
    ledger = Ledger(options.out, {k: getattr(options, k) for k in fixed}, again=options.again)
    chosen = (options.models, options.dtypes, options.solvers, options.methods)
    for name, dtype, solver, method in track(list(itertools.product(*chosen)), "overhead"):
        key = f"{name}, {dtype}, {solver}, {method}"
        ledger.measure(
            key,
            lambda a=name, b=solver, c=method, d=dtype: measure(a, b, c, d, options),
        )
    text = show(ledger.results)
    print(text, end="")
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
