"""`verify` finds and names every one of a list of corruptions, and says nothing of clean runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deqcert.checks import verify
from deqcert.data import load_data
from deqcert.errors import ConfigurationError, RunFolderError, UnknownNameError
from deqcert.models import weights_digest
from deqcert.runners.environment import CHANGED, package_commit
from tests.checks.forgeries import REPLAYED, STATIC, moved, swapped_lines
from tests.checks.runs import METHODS, Forgery, MeansDEQ, make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {method: make_run(folder / method, method) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_an_untouched_run_is_clean_and_replays_to_the_bit(runs, method: str):
    found = verify(runs[method], model=MeansDEQ(), replays=3, indices=[40])
    assert found.clean, found.problems
    assert found.records == 10
    assert len(found.replayed) == 4
    assert 40 in found.replayed
    assert found.seed is not None
    assert found.notes == ()


@pytest.mark.parametrize("name", STATIC)
def test_corruptions_are_found_without_a_replay(runs, tmp_path: Path, name: str):
    method, edit, field = STATIC[name]
    forged = Forgery.of(runs[method], tmp_path / "run")
    edit(forged)
    index = forged.record["index"]
    forged.save()
    found = verify(tmp_path / "run", model=MeansDEQ())
    named = [problem for problem in found.problems if problem.field == field]
    assert named, found.problems
    if not field.startswith("configuration") and name not in ("a record left out", "skip"):
        assert index in {problem.index for problem in named}
    assert all(problem.why and problem.place for problem in found.problems)
    assert all(problem.recorded != problem.recomputed for problem in named)


@pytest.mark.parametrize("name", REPLAYED)
def test_consistent_forgeries_are_found_by_a_replay(runs, tmp_path: Path, name: str):
    method, edit, field = REPLAYED[name]
    forged = Forgery.of(runs[method], tmp_path / "run")
    edit(forged)
    index = forged.record["index"]
    forged.save()
    static = verify(tmp_path / "run", model=MeansDEQ())
    assert static.clean, static.problems  # nothing but a replay can tell
    found = verify(tmp_path / "run", model=MeansDEQ(), indices=[index])
    named = [p for p in found.problems if p.field == field and p.index == index]
    assert named, found.problems
    assert found.replayed == (index,)


def test_damaged_lines_are_named_and_the_rest_is_still_checked(runs, tmp_path: Path):
    forged = Forgery.of(runs["standard"], tmp_path / "run")
    forged.records[5]["radius"] = 1.0
    forged.save()
    path = tmp_path / "run" / "records.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace('"p_lower": ', '"p_lower": NaN, "was": ')
    lines[2] = lines[2][:100]
    lines[3] = lines[3].replace('"radius": ', '"radius": 9.0, "radius": ')
    lines[4] = "[1, 2]"
    path.write_text("\n".join(lines)[:-50])
    found = verify(tmp_path / "run", model=MeansDEQ())
    damaged = {p.line for p in found.problems if p.field == "(line)" and p.file == "records.jsonl"}
    assert damaged == {2, 3, 4, 5, 10}
    assert "radius" in {p.field for p in found.problems if p.index == 200}
    assert any("without a newline" in str(p.recorded) for p in found.problems)
    assert any("'radius' twice" in str(p.recorded) for p in found.problems)


def test_the_table_must_be_that_of_the_records(runs, tmp_path: Path):
    def fields(change: Callable[[Path], None], name: str) -> set[tuple[str, int | None]]:
        forged = Forgery.of(runs["standard"], tmp_path / name)
        change(forged.path / "cohen.tsv")
        found = verify(forged.path, model=MeansDEQ())
        assert all(p.file == "cohen.tsv" for p in found.problems)
        return {(p.field, p.index) for p in found.problems}

    def radius(path: Path) -> None:
        lines = path.read_text().split("\n")
        cells = lines[3].split("\t")
        cells[3] = "1.234567"
        path.write_text("\n".join([*lines[:3], "\t".join(cells), *lines[4:]]))

    def last(path: Path) -> None:
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))

    assert fields(radius, "a") == {("radius", 80)}
    assert fields(last, "b") == {("(line)", 360)}
    assert fields(Path.unlink, "c") == {("(file)", None)}
    swapped = Forgery.of(runs["standard"], tmp_path / "d")
    swapped_lines(swapped)
    swapped.save(table=False)
    found = verify(swapped.path, model=MeansDEQ())
    assert {p.index for p in found.problems if p.field == "idx"} == {40, 80}


def test_what_was_not_checked_is_said(runs):
    found = verify(runs["standard"])
    assert found.clean
    assert any("weights were not checked" in note for note in found.notes)
    assert any("nothing was replayed" in note for note in found.notes)


def test_a_run_from_elsewhere_is_checked_to_the_last_digits_only(runs, tmp_path: Path):
    forged = Forgery.of(runs["standard"], tmp_path / "run")
    forged.content["environments"][0]["scipy"] = "1.0"
    forged.content["environments"][0]["torch"] = "2.0"
    forged.record["p_lower"] *= 1 - 1e-15
    forged.record["radius"] *= 1 - 1e-14
    forged.save()
    found = verify(tmp_path / "run", model=MeansDEQ(), indices=[80])
    assert found.clean, found.problems
    assert any("torch '2.0' there" in note for note in found.notes)
    forged.record["radius"] *= 1 + 1e-11
    forged.save()
    assert [p.field for p in verify(tmp_path / "run", model=MeansDEQ()).problems] == ["radius"]


def with_another_margin(original: Path, copy: Path) -> Forgery:
    """A run whose margin differs in every record, as one made by older code has it."""
    forged = Forgery.of(original, copy)
    for item in forged.records:
        item["reference"]["margin"] *= 2
    return forged


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        ({"commit": "0" * 40}, True),
        ({"deqcert": "0.0.1"}, True),
        ({"commit": None}, None),  # unknown only where this package is a checkout
        ({}, None),  # the same code, if its commit is known
    ],
)
def test_a_margin_of_other_code_is_a_note(runs, tmp_path: Path, change: dict, noted: bool | None):
    forged = with_another_margin(runs["standard"], tmp_path / "run")
    environment = forged.content["environments"][0]
    environment.update(change)
    forged.save()
    if noted is None:
        own = environment["commit"] == package_commit()
        noted = not own or (package_commit() or "").endswith(CHANGED)
    found = verify(forged.path, model=MeansDEQ(), indices=[40, 80])
    assert found.clean == noted
    assert {p.field for p in found.problems} == (set() if noted else {"reference.margin"})
    said = [note for note in found.notes if "run made by another version" in note]
    assert len(said) == noted


def test_every_session_of_a_run_counts(runs, tmp_path: Path):
    """Records of an earlier session may have a margin of the code of that time."""
    forged = with_another_margin(runs["standard"], tmp_path / "run")
    last = forged.content["environments"][0]
    forged.content["environments"].insert(0, {**last, "commit": "0" * 40})
    forged.save()
    found = verify(forged.path, model=MeansDEQ(), indices=[40])
    assert found.clean, found.problems
    assert any(f"commit '{'0' * 40}' there" in note for note in found.notes)


def test_a_margin_of_an_unknown_version_is_a_note_but_no_excuse(runs, tmp_path: Path):
    forged = with_another_margin(runs["standard"], tmp_path / "run")
    del forged.content["environments"][0]["commit"]  # as runs were before it was recorded
    forged.save()
    found = verify(forged.path, model=MeansDEQ(), indices=[80])
    assert found.clean
    assert any("another version" in note for note in found.notes)
    moved(forged)
    forged.save()
    found = verify(forged.path, model=MeansDEQ(), indices=[forged.record["index"]])
    fields = {p.field.partition("[")[0] for p in found.problems}
    assert {"reference.margin", "counts"} <= fields


def test_bad_input_is_refused(runs, tmp_path: Path):
    with pytest.raises(RunFolderError, match="not a run folder"):
        verify(tmp_path)
    with pytest.raises(ConfigurationError, match="needs the model"):
        verify(runs["standard"], replays=1)
    with pytest.raises(UnknownNameError):
        verify(runs["standard"], model="mdeq-digit")
    with pytest.raises(ConfigurationError, match="no whole record of image 41"):
        verify(runs["standard"], model=MeansDEQ(), indices=[41])
    with pytest.raises(ConfigurationError, match="replays must be"):
        verify(runs["standard"], model=MeansDEQ(), replays=-1)
    with pytest.raises(ConfigurationError, match="draws must be"):
        verify(runs["standard"], model=MeansDEQ(), draws=0)
    forged = Forgery.of(runs["standard"], tmp_path / "run")
    (forged.path / "run.json").write_text('{"format": 1}')
    with pytest.raises(RunFolderError, match="damaged"):
        verify(forged.path)
    (forged.path / "run.json").write_text("{")
    with pytest.raises(RunFolderError, match="damaged"):
        verify(forged.path)


def test_the_same_seed_chooses_the_same_records(runs):
    data, model = load_data("digits"), MeansDEQ()
    assert weights_digest(model) == weights_digest(MeansDEQ())
    first, again, other = (
        verify(runs["standard"], model=model, data=data, replays=2, seed=seed).replayed
        for seed in (5, 5, 2**70)
    )
    assert first == again
    assert len(other) == 2
