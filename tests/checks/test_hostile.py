"""Whatever stands in a run folder, `verify` neither fails nor takes it for a clean run."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deqcert.checks import verify
from deqcert.data import load_data
from deqcert.errors import RunFolderError
from deqcert.models import EquilibriumModel
from tests.checks.runs import (
    METHODS,
    MeansDEQ,
    make_deterministic_run,
    make_run,
    monotone_model,
)

CERTAIN = {"lipschitz": "quadratic", "interval": "absolute"}

WEIRD: tuple[Any, ...] = (None, -1, 10**30, 1e300, "x", "", [], {}, ["a"], True)
# What only a replay, or nobody, can judge; and None and empty tables where they are the truth.
FREE = {
    ("plan", "reason"),
    ("plan", "expected_radius_over_sigma"),
    ("plan", "expected_reference_solves"),
    ("distance",),
    *((table, name) for table in ("residual",) for name in ("0", "0.5", "0.9", "0.99", "1")),
}
# Data sets of one's own may be certified; that their labels were not checked is noted.
NAMES = {("data",)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of the first two images only: each is read a thousand times."""
    folder = tmp_path_factory.mktemp("runs")
    for method in (*METHODS, *CERTAIN):
        make = make_run if method in METHODS else make_deterministic_run
        run = make(folder / method, method)
        for name in ("records.jsonl", "cohen.tsv"):
            lines = (run / name).read_text().splitlines(keepends=True)
            (run / name).write_text("".join(lines[: 2 + (name == "cohen.tsv")]))
    return {method: folder / method for method in (*METHODS, *CERTAIN)}


def model_of(method: str) -> EquilibriumModel:
    return monotone_model(CERTAIN[method]) if method in CERTAIN else MeansDEQ()


def leaves(table: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in table.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from leaves(value, (*above, name))


def changed(table: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any, dict[str, Any]]]:
    """Yield the table with every value in it replaced by every weird one."""
    for path in leaves(table):
        for weird in WEIRD:
            copied = copy.deepcopy(table)
            at = copied
            for name in path[:-1]:
                at = at[name]
            if at[path[-1]] != weird:
                at[path[-1]] = weird
                yield path, weird, copied


@pytest.mark.parametrize("method", [*METHODS, *CERTAIN])
def test_weird_values_in_a_record_are_problems(runs, tmp_path: Path, method: str):
    model, data = model_of(method), load_data("digits")
    file = runs[method] / "records.jsonl"
    original = file.read_text()
    first, second = original.splitlines()
    silent = []
    try:
        for path, weird, record in changed(json.loads(second)):
            file.write_text(f"{first}\n{json.dumps(record)}\n")
            found = verify(runs[method], model=model, data=data)
            if found.clean and path not in FREE:
                silent.append((path, weird))
    finally:
        file.write_text(original)
    assert verify(runs[method], model=model, data=data).clean
    assert silent == []


@pytest.mark.parametrize("method", ["srs", *CERTAIN])
def test_weird_settings_are_problems_or_refused(runs, method: str):
    model, data = model_of(method), load_data("digits")
    file = runs[method] / "run.json"
    original = file.read_text()
    content = json.loads(original)
    environments = content.pop("environments")
    silent = []
    try:
        for path, weird, settings in changed(content):
            file.write_text(json.dumps({**settings, "environments": environments}))
            try:
                found = verify(runs[method], model=model, data=data, replays=1)
            except RunFolderError:
                continue
            if found.clean:
                silent.append((path, weird))
    finally:
        file.write_text(original)
    assert silent == []


@pytest.mark.parametrize("weird", WEIRD)
def test_weird_environments_neither_fail_nor_matter(runs, weird):
    """They are facts about sessions: at most they make the comparison less strict, with a note."""
    model = MeansDEQ()
    file = runs["standard"] / "run.json"
    original = file.read_text()
    try:
        for name in ("device", "scipy", "torch", "runner", "commit", "instructions"):
            content = json.loads(original)
            content["environments"][0][name] = weird
            file.write_text(json.dumps(content))
            found = verify(runs["standard"], model=model, indices=[40])
            assert found.clean, found.problems
            assert found.notes or name in ("scipy", "runner")
        content["environments"] = weird
        file.write_text(json.dumps(content))
        with pytest.raises(RunFolderError, match="damaged"):
            verify(runs["standard"], model=model)
    finally:
        file.write_text(original)
