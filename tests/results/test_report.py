"""`report`: from run folders to what is printed and written."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from deqcert.certificate import Certificate
from deqcert.errors import ConfigurationError, RunFolderError
from deqcert.results import RunFolder, report
from tests.results.made import ENVIRONMENT, audited, certain, certificate

CONFIGURATION = {
    "method": "standard",
    "sigma": 0.5,
    "data": "digits",
    "split": "test",
    "data_digest": "ab" * 32,
    "seed": 0,
}
FILES = {
    *("table.md", "table.tex", "summary.csv", "summary.json"),
    *("certified_accuracy.png", "certified_accuracy.pdf"),
}


def make_run(folder: Path, certificates: list[Certificate], **changes: Any) -> Path:
    with RunFolder.create_or_resume(folder, {**CONFIGURATION, **changes}, ENVIRONMENT) as run:
        for made in certificates:
            run.append(made, label=0)
    return folder


@pytest.fixture
def standard(tmp_path: Path) -> Path:
    radii = (0.3, 0.9, 1.25)
    return make_run(tmp_path / "standard", [certificate(i, radius=r) for i, r in enumerate(radii)])


@pytest.fixture
def srs(tmp_path: Path) -> Path:
    made = [audited(i, drawn=400, disagreements=1, radius=0.5 * i) for i in range(3)]
    return make_run(tmp_path / "srs", made, method="srs")


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    made = [
        audited(i, drawn=400, disagreements=0, guarantee="none", method="srs-paper")
        for i in range(3)
    ]
    return make_run(tmp_path / "srs-paper", made, method="srs-paper")


def test_one_run_is_reported_in_its_own_folder(standard: Path) -> None:
    found = report(standard)
    assert {path.name for path in (standard / "report").iterdir()} == FILES
    assert set(found.files) == {standard / "report" / name for name in FILES}
    assert all(path.stat().st_size > 100 for path in found.files)
    assert found.summaries[0].radii == (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    text = str(found)
    assert "certified accuracy at r = 0.25    100.0 %" in text
    # The line is wrapped where the terminal ends, the path too if it is long.
    assert str(standard / "report") in text.replace("\n", "")
    assert RunFolder.open(standard).done == {0, 1, 2}


def test_any_way_to_name_a_run(standard: Path, srs: Path) -> None:
    expected = report([standard, srs]).summaries
    for run in (str(standard), RunFolder.open(standard), SimpleNamespace(path=str(standard))):
        assert report([run, srs]).summaries == expected
        assert report((srs, run)).summaries == expected[::-1]


def test_one_run_needs_no_list(standard: Path) -> None:
    run = SimpleNamespace(path=RunFolder.open(standard).path)
    assert report(run).summaries == report(str(standard)).summaries


def test_several_runs_are_written_only_where_told(standard: Path, srs: Path) -> None:
    found = report([standard, srs])
    assert found.files == ()
    assert not (standard / "report").exists()
    out = standard.parent / "new" / "both"
    found = report([standard, srs], out=out, radii=[0.5, 0.0])
    assert {path.name for path in out.iterdir()} == FILES
    assert [s.name for s in found.summaries] == ["standard", "srs"]
    assert found.summaries[1].certified_accuracy == (1.0, pytest.approx(2 / 3))
    assert not any(note.startswith("WARNING") for note in found.notes)
    assert any("alpha to be split" in note for note in found.notes)


def test_written_numbers_agree(standard: Path, srs: Path, tmp_path: Path) -> None:
    found = report([standard, srs], out=tmp_path / "out", radii=[0.0, 0.5])
    with open(tmp_path / "out" / "summary.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    stored = json.loads((tmp_path / "out" / "summary.json").read_text())
    for summary, row, entry in zip(found.summaries, rows, stored, strict=True):
        assert float(row["certified_accuracy_0.5"]) == summary.certified_accuracy[1]
        assert float(row["average_certified_radius"]) == summary.average_certified_radius
        assert entry == json.loads(json.dumps(summary.to_json()))
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| audits drawn | - | 1,200 |" in table


def test_the_published_rule_is_never_shown_without_its_warning(
    standard: Path, paper: Path, tmp_path: Path
) -> None:
    found = report([standard, paper], out=tmp_path / "out")
    warning = "WARNING: srs-paper has NO GUARANTEE"
    assert found.notes[0].startswith(warning)
    for text in (
        str(found),
        (tmp_path / "out" / "table.md").read_text(),
        (tmp_path / "out" / "table.tex").read_text(),
    ):
        assert warning in text
        assert "NONE" in text
    row = (tmp_path / "out" / "summary.csv").read_text().splitlines()[2]
    assert row.startswith("srs-paper,srs-paper,none,")
    stored = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert stored[1]["high_probability_accuracy"] is None


def test_different_images_and_settings_are_said(standard: Path, srs: Path, tmp_path: Path) -> None:
    short = make_run(tmp_path / "short", [certificate(0), certificate(7)], seed=1)
    notes = report([standard, short]).notes
    assert any("different images of one data set (1 in common)" in note for note in notes)
    assert any("The runs also differ in seed." in note for note in notes)
    other = make_run(tmp_path / "other", [certificate(i) for i in range(3)], data_digest="cd")
    notes = report([standard, other]).notes
    data = "WARNING: the runs are about different data (digits test: standard; digits test: other)"
    assert any(data in note for note in notes)
    weights = make_run(tmp_path / "weights", [certificate(i) for i in range(3)], weights_digest="1")
    notes = report([standard, weights]).notes
    assert any("The runs also differ in weights." in note for note in notes)


def test_other_architectures_are_one_difference(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / name, [certificate(0)], **settings)
        for name, settings in {
            "old": {},
            "one": {"architecture": {"family": "mdeq", "groups": 8, "mean": [0.5]}},
            "two": {"architecture": {"family": "mdeq", "groups": 4, "mean": [0.1]}},
        }.items()
    ]
    assert any("The runs also differ in architecture." in note for note in report(runs[1:]).notes)
    assert not any("differ" in note for note in report(runs[:2]).notes)


def test_runs_of_several_sigmas_share_the_finest_grid(standard: Path, tmp_path: Path) -> None:
    fine = make_run(
        tmp_path / "fine", [certificate(i, sigma=0.25, radius=0.4) for i in range(3)], sigma=0.25
    )
    found = report([standard, fine])
    assert [s.sigma for s in found.summaries] == [0.5, 0.25]
    assert found.summaries[0].radii == found.summaries[1].radii
    assert found.summaries[0].radii[1] == 0.125


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a" / "srs", [certificate(0)])
    second = make_run(tmp_path / "b" / "srs", [certificate(0)])
    assert [s.name for s in report([first, second]).summaries] == ["a/srs", "b/srs"]
    with pytest.raises(ConfigurationError, match="same run twice"):
        report([first, first])


def test_what_cannot_be_reported(standard: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least one run"):
        report([])
    with pytest.raises(RunFolderError, match="is not a run folder"):
        report(tmp_path / "missing")
    empty = make_run(tmp_path / "empty", [])
    with pytest.raises(RunFolderError, match="empty has no records yet"):
        report([standard, empty])
    with pytest.raises(ConfigurationError, match="radii must be finite and >= 0, but got -1"):
        report(standard, radii=[-1.0])
    (tmp_path / "taken").write_text("notes")
    with pytest.raises(RunFolderError, match="taken: a file is in its way"):
        report(standard, out=tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "notes"


def test_printing_with_rich_equals_printing(standard: Path) -> None:
    found = report(standard)
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(found)
    plain = [line.rstrip() for line in capture.get().splitlines()]
    assert plain[:10] == str(found).splitlines()[:10]


def test_a_report_leaves_nothing_of_an_earlier_one(standard: Path, tmp_path: Path) -> None:
    with RunFolder.create_or_resume(tmp_path / "linf", CONFIGURATION, ENVIRONMENT) as run:
        run.append(certain(0, method="interval"), label=0)
    out = tmp_path / "both"
    both = report([standard, tmp_path / "linf"], out=out, html=True)
    assert (out / "table_Linf.md").exists()
    (out / "mine.md").write_text("mine")
    one = report(standard, out=out)
    assert {path.name for path in out.iterdir()} == {*FILES, "mine.md", "report.html"}
    assert any("report.html is of an earlier report" in note for note in one.notes)
    assert not any("earlier" in note for note in both.notes)
    again = report([standard, tmp_path / "linf"], out=out, html=True)
    assert {path.name for path in again.files} == {p.name for p in out.iterdir()} - {"mine.md"}


def test_without_matplotlib_the_tables_are_still_written(
    standard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = report(standard)
    assert {path.suffix for path in found.files} == {".md", ".tex", ".csv", ".json"}
    assert 'pip install "deqcert[report]"' in str(found)


def test_reports_need_no_torch(standard: Path) -> None:
    code = (
        "import sys\n"
        "from deqcert.results import report\n"
        f"report({str(standard)!r})\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    source = Path(__file__).parents[2] / "src"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(source)})
