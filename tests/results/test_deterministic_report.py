"""Reports of deterministic runs: norms apart in tables and curves, nothing about draws."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deqcert.certificate import DeterministicCertificate
from deqcert.errors import ConfigurationError, DeqcertError, RunFolderError
from deqcert.results import RunFolder, plots, report, summarize, tables
from deqcert.results.records import decode, encode, make_record
from deqcert.results.summary import default_linf_radii, default_radii
from tests.results.made import ENVIRONMENT, certain, certificate
from tests.results.test_report import CONFIGURATION, FILES, make_run

CLAIMS: dict[str, dict[str, Any]] = {
    "lipschitz": {"norm": "L2", "domain": "all", "solver": "picard:500:1e-07"},
    "interval": {"norm": "Linf", "domain": "pixels", "steps": 50},
}
SHARED = {key: CONFIGURATION[key] for key in ("data", "split", "data_digest")}


def make_certain(folder: Path, method: str, radii: tuple[float, ...]) -> Path:
    """A run of one certificate per radius; a radius of 0 is an image without a class."""
    configuration = {**SHARED, "method": method, "guarantee": "deterministic", **CLAIMS[method]}
    with RunFolder.create_or_resume(folder, configuration, ENVIRONMENT) as run:
        for index, radius in enumerate(radii):
            changes = {"radius": radius, "prediction": 0 if radius else None}
            run.append(certain(index, method=method, **changes), label=0)
    return folder


@pytest.fixture
def lipschitz(tmp_path: Path) -> Path:
    return make_certain(tmp_path / "lipschitz", "lipschitz", (0.3, 0.0, 0.9))


@pytest.fixture
def interval(tmp_path: Path) -> Path:
    return make_certain(tmp_path / "interval", "interval", (1 / 255, 0.0, 9.5 / 255))


@pytest.fixture
def standard(tmp_path: Path) -> Path:
    made = [certificate(i, radius=r) for i, r in enumerate((0.3, 0.9, 1.25))]
    return make_run(tmp_path / "standard", made)


def test_records_of_both_kinds_come_back():
    for made in (certain(4), certain(4, method="interval"), certificate(4)):
        line = encode(make_record(made, label=0)).encode()
        assert decode(line, where="here")["guarantee"] == made.guarantee
    broken = make_record(certain(4), label=0)
    for change in ({"norm": "Linf"}, {"guarantee": "standard"}, {"method": "srs"}):
        with pytest.raises(RunFolderError, match="here is damaged"):
            decode(encode({**broken, **change}).encode(), where="here")
    with pytest.raises(DeqcertError, match="the norm of interval is Linf"):
        certain(method="interval", norm="L2")
    assert DeterministicCertificate.from_json(broken).abstained is False


def test_a_summary_has_no_draws():
    rows = [make_record(certain(i, radius=r), label=0) for i, r in enumerate((0.2, 0.4))]
    rows.append(make_record(certain(2, prediction=None, radius=0.0), label=0))
    found = summarize(rows, radii=[0.0, 0.3])
    assert (found.norm, found.guarantee, found.alpha) == ("L2", "deterministic", 0.0)
    assert found.certified_accuracy == found.high_probability_accuracy
    assert found.certified_accuracy == pytest.approx((2 / 3, 1 / 3))
    none = (found.sigma, found.n, found.accuracy_under_noise, found.audits, found.unconverged)
    assert none == (None,) * 5
    assert found.abstentions == 1
    with pytest.raises(RunFolderError, match="several method"):
        summarize([*rows, make_record(certain(9, method="interval"), label=0)], radii=[0.0])


def test_alone_a_run_is_reported_in_its_norm(lipschitz: Path, interval: Path):
    for run, norm, radius in ((lipschitz, "L2", "r = 0.1"), (interval, "Linf", "Linf r = 2/255")):
        found = report(run)
        assert {path.name for path in found.files} == FILES
        text = str(found)
        assert radius in text
        assert "66.7 %" in text
        assert "(" not in text.split("certified accuracy at")[1].splitlines()[0]
        assert "sigma" not in text
        assert "draw" not in text
        assert f"Radii r are {norm}, in pixel units" in text
        assert "deterministic" in text
        (row,) = csv.DictReader((run / "report" / "summary.csv").read_text().splitlines())
        assert (row["norm"], row["sigma"]) == (norm, "")
    assert "against images with pixels in [0, 1] alone" in str(report(interval))


def test_linf_radii_are_levels_of_a_pixel(interval: Path):
    (found,) = report(interval).summaries
    assert found.radii == tuple(k / 255 for k in (0, 1, 2, 4, 8))
    assert found.certified_accuracy == pytest.approx((2 / 3, 2 / 3, 1 / 3, 1 / 3, 1 / 3))
    labels = [line.label for line in tables.lines([found])]
    assert "certified accuracy at Linf r = 0" in labels
    assert "certified accuracy at Linf r = 8/255" in labels
    assert r"certified accuracy at $\ell_\infty$ $r = 8/255$" in tables.latex([found])
    (own,) = report(interval, radii=[0.0, 0.01]).summaries
    assert "certified accuracy at Linf r = 0.01" in [line.label for line in tables.lines([own])]
    assert default_linf_radii(0.0) == [0.0, 1 / 255, 2 / 255]
    assert default_linf_radii(0.5)[-1] == 64 / 255


def test_l2_radii_without_noise_are_round():
    assert default_radii([], 0.9) == pytest.approx([0.1 * k for k in range(10)])
    assert default_radii([], 0.21) == pytest.approx([0.025 * k for k in range(9)])
    assert default_radii([], 0.0) == [0.0, 0.25, 0.5]


def test_beside_noise_l2_shares_the_table(standard: Path, lipschitz: Path, tmp_path: Path):
    found = report([standard, lipschitz], out=tmp_path / "out")
    assert {path.name for path in found.files} == FILES
    assert found.summaries[0].radii == found.summaries[1].radii == (0, 0.25, 0.5, 0.75, 1.0, 1.25)
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| noise sigma | 0.5 | - |" in table
    assert "| draws n per image | 1,000 | - |" in table
    assert "another classifier" in table
    assert "alpha to be split" not in table
    assert "runs also differ" not in table


def test_norms_never_share_a_table_or_a_curve(
    standard: Path, lipschitz: Path, interval: Path, tmp_path: Path
):
    out = tmp_path / "out"
    found = report([standard, interval, lipschitz], out=out)
    assert {path.name for path in out.iterdir()} == {
        *(f"table_{norm}.{kind}" for norm in ("L2", "Linf") for kind in ("md", "tex")),
        *(f"summary_{norm}.csv" for norm in ("L2", "Linf")),
        *(f"certified_accuracy_{n}.{kind}" for n in ("L2", "Linf") for kind in ("png", "pdf")),
        "summary.json",
    }
    l2, linf = ((out / f"table_{norm}.md").read_text() for norm in ("L2", "Linf"))
    assert "|  | standard | lipschitz |" in l2
    assert "|  | interval |" in linf
    assert "/255" not in l2.split("\n\n")[0]
    assert "r = 0.25" not in linf
    assert "interval" not in (out / "summary_L2.csv").read_text()
    assert [s["norm"] for s in json.loads((out / "summary.json").read_text())] == [
        *("L2", "Linf", "L2")
    ]
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(found)
    text = capture.get()
    first, second = text.split("Certificates in Linf")
    assert "Certificates in L2" in first
    assert "standard" in first
    assert "interval" not in first
    assert "L2 and Linf radii do not compare" in second
    assert "Radii r are L2 and Linf" in second


def test_radii_of_each_norm_can_be_chosen(standard: Path, interval: Path):
    found = report([standard, interval], radii=[0.0, 0.7], linf_radii=[0.0, 0.1])
    assert [s.radii for s in found.summaries] == [(0.0, 0.7), (0.0, 0.1)]
    with pytest.raises(ConfigurationError, match="reports of both norms"):
        report(interval, linf_radii=[0.1])


def test_each_norm_has_its_axis():
    pytest.importorskip("matplotlib")
    curve = plots.Curve(name="a", guarantee="deterministic", correct_radii=(0.01,), images=2)
    for norm, symbol in (("L2", r"$\ell_2$"), ("Linf", r"$\ell_\infty$")):
        figure = plots.certified_accuracy_figure([curve], radii=[0.0], title="", norm=norm)
        assert symbol in figure.axes[0].get_xlabel()
        assert figure.axes[0].get_xlim()[1] < 0.011
