"""A run as a pandas frame: every record in it, columns and types as documented."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deqcert.results import RunFolder, frame, read_cohen
from deqcert.results.frame import COLUMNS
from tests.results.made import CONFIGURATION, ENVIRONMENT, audited, certain, certificate

pd = pytest.importorskip("pandas")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    with RunFolder.create_or_resume(tmp_path / "run", CONFIGURATION, ENVIRONMENT) as run:
        run.append(certificate(0, radius=0.125), label=0)
        run.append(certificate(40, prediction=None, radius=0.0), label=1)
        run.append(audited(20, drawn=400, disagreements=3, radius=0.7), label=2)
    return RunFolder.open(tmp_path / "run")


def test_a_row_per_image_with_its_values(run: RunFolder) -> None:
    table = run.frame()
    assert list(table.index) == [0, 40, 20]
    assert table.index.name == "index"
    assert table.loc[0, "radius"] == 0.125
    assert list(table.correct) == [True, False, False]
    assert list(table.abstained) == [False, True, False]
    assert table.prediction.isna().tolist() == [False, True, False]
    assert table.loc[20, ["audit_drawn", "audit_disagreements"]].tolist() == [400, 3]
    assert table.audit_drawn.isna().tolist() == [True, True, False]
    assert table.loc[0, "steps_median"] == 30.0
    assert set(table.norm) == {"L2"}
    assert table.attrs["configuration"] == CONFIGURATION
    assert (table.correct & (table.radius >= 0.125)).mean() == pytest.approx(1 / 3)


def test_seeds_have_any_size(tmp_path: Path) -> None:
    seed = 2**70 + 3
    with RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT) as made:
        made.append(certificate(0, seed=seed), label=0)
    assert frame(tmp_path).loc[0, "seed"] == seed


@pytest.mark.parametrize("kind", ["run", "deterministic", "published", "empty"])
def test_columns_and_types_are_those_of_the_documents(
    run: RunFolder, tmp_path: Path, kind: str
) -> None:
    source: object = run
    if kind == "published":
        source = read_cohen(run.path / "cohen.tsv")
    elif kind != "run":
        with RunFolder.create_or_resume(tmp_path / kind, CONFIGURATION, ENVIRONMENT) as made:
            if kind == "deterministic":
                made.append(certain(0, method="interval"), label=0)
        source = str(tmp_path / kind)
    table = frame(source)  # pyright: ignore[reportArgumentType]
    assert list(table.columns) == list(COLUMNS)
    assert {name: str(found) for name, found in table.dtypes.items()} == COLUMNS
    if kind == "deterministic":
        assert table.sigma.isna().all()
        assert table.norm.tolist() == ["Linf"]
    if kind == "published":
        assert table.guarantee.tolist() == ["published"] * 3
        assert table.cell_evaluations.isna().all()


def test_documented_columns_are_these() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "frames.md").read_text()
    assert all(f"`{name}`" in page for name in COLUMNS)


def test_without_pandas_it_is_one_line(run: RunFolder) -> None:
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from deqcert.errors import DeqcertError\n"
        "from deqcert.results import frame\n"
        "try:\n    frame(sys.argv[1])\n"
        "except DeqcertError as error:\n    print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(run.path)], check=True, capture_output=True, text=True
    )
    assert said.stdout == 'frames need pandas: pip install "deqcert[frame]"\n'
