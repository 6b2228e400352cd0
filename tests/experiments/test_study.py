"""A study on digits: it runs, stops, goes on, and its table has the numbers of its records."""

from __future__ import annotations

import io
import json
import math
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from experiments.running import OutOfTimeError, Place, run_study
from experiments.settings import read_study
from experiments.subjects import Shelf
from rich.console import Console
from scipy import stats

from deqcert.data import load_data
from deqcert.models import load_model, save_model
from deqcert.models.mondeq import MonDEQ
from deqcert.models.mondeq_config import MonDEQConfig
from deqcert.results import RunFolder
from experiments import study

STUDY = """
title = "Digits"
about = "Small."
data = "digits"
radii = [0.0, 0.25, 0.5]
published = ["cifar10-small-s050"]
pairs = [["cold", "warm"]]

[train]
mdeq-digits-s099 = "deqcert train ..."

[defaults]
model = "mdeq-digits-s050"
sigma = 0.5
n0 = 20
n = 200
alpha = 0.01
chains = 40

[small]
skip = 100
limit = 3

[full]
limit = 397

[[rows]]
name = "cold"
title = "cold"
method = "standard"
clean = true
published = "MDEQ-30A"

[[rows]]
name = "warm"
title = "warm"
method = "srs"
audit = 100

[[rows]]
name = "paper"
title = "paper"
method = "srs-paper"
audit = 60

[[rows]]
name = "absent"
title = "absent"
model = "mdeq-digits-s099"

[[claims]]
name = "released"
title = "released"
rule = "released-code"
of = "paper"
"""


def run(out: Path, *options: str, text: str = STUDY) -> str:
    """Run a study at its small preset, and return what it printed."""
    file = out.parent / "digits.toml"
    file.write_text(text)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setattr(sys, "argv", ["study", str(file), "--out", str(out), *options])
        study.main()
    return printed.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a whole run, and what it printed; to be read only."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, run(out)


def records(out: Path, row: str) -> list[dict]:
    return list(RunFolder.open(out / "runs" / row).records())


def timeless(out: Path, row: str) -> list[dict]:
    return [{**record, "seconds": 0} for record in records(out, row)]


def table(out: Path) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads((out / "table.json").read_text())["rows"]}


def test_the_table_has_the_numbers_of_the_records(whole):
    out, printed = whole
    found = table(out)
    for name in ("cold", "warm", "paper"):
        rows, line = records(out, name), found[name]
        assert [r["index"] for r in rows] == [0, 100, 200]
        assert line["status"] == "complete"
        for radius, share in zip((0.0, 0.25, 0.5), line["accuracy"], strict=True):
            right = [r for r in rows if r["prediction"] == r["label"] and r["radius"] >= radius]
            assert share == len(right) / 3
        areas = [r["radius"] if r["prediction"] == r["label"] else 0.0 for r in rows]
        assert line["average_radius"] == pytest.approx(sum(areas) / 3, rel=1e-12)
        for key in ("seconds", "cell_evaluations"):
            assert line[key] == pytest.approx(sum(r[key] for r in rows) / 3, rel=1e-12)
    assert found["paper"]["guarantees"] == {"none": 3}
    assert found["paper"]["high_probability"] is None
    for line in printed.split("## ")[1].splitlines():
        if line.startswith(("| paper |", "| released |")):
            assert "**NO GUARANTEE**" in line
    assert "| cold | " in printed
    # No more than 0.5 Phi^-1(0.01^(1/100)) = 0.8476 from 100 audited draws at alpha = 0.01.
    assert "100 audited draws, alpha = 0.01, sigma = 0.5: `srs` certifies no radius" in printed
    assert "above 0.847, were all labels right" in printed
    assert "| *published: MDEQ-30A* | *62* | *50* | *38* |" in printed
    assert printed.rstrip() == (out / "table.md").read_text().rstrip()


def test_of_untrained_weights_no_accuracy_is_claimed(tmp_path):
    """Two of ten random answers may well be right: that would read like a result."""
    untrained = """
[[rows]]
name = "smoke"
title = "smoke"
method = "srs"
model = "mdeq-digits"
untrained = true
reference = "picard:2"
serial = "picard:1"
n = 40
audit = 20
"""
    out = tmp_path / "out"
    printed = run(out, "--rows", "smoke", text=STUDY + untrained)
    line = table(out)["smoke"]
    assert (line["status"], line["images"], sum(line["guarantees"].values())) == ("complete", 3, 3)
    assert line["accuracy"] is line["high_probability"] is line["average_radius"] is None
    (shown,) = [text for text in printed.splitlines() if text.startswith("| smoke")]
    assert "[untrained weights: that it runs, no accuracy claimed] | - | - | - | - |" in shown
    assert "Gap" not in printed
    assert not list(out.glob("*.png"))


def test_missing_weights_are_named_and_fail_nothing(whole):
    line = table(whole[0])["absent"]
    assert line["status"] == (
        "not run: no weights of mdeq-digits-s099 (to be made by `deqcert train ...`)"
    )
    assert line["accuracy"] is None


def test_the_rule_of_the_released_code_on_the_same_draws(whole):
    """CP(r N_A, r N, alpha / 2) with r = CP(N_1, N_2, alpha / 2), by SciPy's own beta quantiles."""
    out, _ = whole
    radii = []
    for row in records(out, "paper"):
        drawn, wrong = row["audit"]["drawn"], row["audit"]["disagreements"]
        half = row["alpha"] / 2
        rate = stats.beta.ppf(half, drawn - wrong, wrong + 1)
        count, n = rate * row["count"], rate * row["n"]
        radius = max(0.0, 0.5 * stats.norm.ppf(stats.beta.ppf(half, count, n - count + 1)))
        selected = max(range(10), key=lambda label: row["counts0"][label])
        radii.append(radius if selected == row["label"] else 0.0)
    line = table(out)["released"]
    assert line["average_radius"] == pytest.approx(math.fsum(radii) / 3, rel=1e-9)
    assert line["guarantees"] == {"none": 3}
    assert line["average_radius"] > table(out)["paper"]["average_radius"]


def test_pairs_and_gaps(whole):
    out, _ = whole
    content = json.loads((out / "table.json").read_text())
    cold = {r["index"]: r["radius"] for r in records(out, "cold")}
    warm = {r["index"]: r["radius"] for r in records(out, "warm")}
    expected = [abs(cold[i] - warm[i]) / cold[i] for i in sorted(cold) if cold[i] > 0]
    assert content["pairs"][0]["values"] == pytest.approx(expected, rel=1e-12)
    assert content["pairs"][0]["mean"] == pytest.approx(sum(expected) / len(expected))
    expected = [
        1 - stats.beta.ppf(r["alpha"] / 2, a["drawn"] - a["disagreements"], a["disagreements"] + 1)
        for r in records(out, "paper")
        if (a := r["audit"])
    ]
    assert content["gaps"]["paper"]["values"] == pytest.approx(expected, rel=1e-9)
    for name in ("curves.png", "gaps.png", "rrd.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_several_workers_give_the_same_records(whole, tmp_path):
    out = tmp_path / "out"
    run(out, "--rows", "warm", "--workers", "2")
    found = sorted(timeless(out, "warm"), key=lambda record: record["index"])
    assert found == timeless(whole[0], "warm")
    assert RunFolder.open(out / "runs" / "warm").environments[-1]["workers"] == 2


def test_stopped_and_resumed_equals_uninterrupted(whole, tmp_path):
    parts, rows = tmp_path / "parts", ("--rows", "cold,warm")
    run(parts, *rows, "--minutes", "0")
    assert table(parts)["cold"]["status"] == "not run yet"
    run(parts, *rows, "--limit", "1")
    assert [len(records(parts, row)) for row in ("cold", "warm")] == [1, 1]
    assert table(parts)["cold"]["status"] == "partial"
    assert "| cold (partial) |" in (parts / "table.md").read_text()
    run(parts, *rows)
    for row in ("cold", "warm"):
        assert timeless(parts, row) == timeless(whole[0], row)
    before = (parts / "runs" / "cold" / "records.jsonl").read_bytes()
    (parts / "table.md").unlink()
    run(parts, *rows)  # nothing is left to do
    assert (parts / "table.md").exists()
    run(parts, "--table", "--limit", "1")
    assert table(parts)["cold"]["images"] == 3
    assert (parts / "runs" / "cold" / "records.jsonl").read_bytes() == before


class StopsAfterOne(Place):
    """A session whose time is up as soon as the first record is on disk."""

    def check_time(self) -> None:
        records = self.out / "runs" / "cold" / "records.jsonl"
        if records.exists() and records.stat().st_size:
            raise OutOfTimeError


def test_time_is_up_after_the_image_under_way(tmp_path):
    (tmp_path / "digits.toml").write_text(STUDY)
    settings = read_study(str(tmp_path / "digits.toml"), "small")
    console = Console(file=io.StringIO())
    place = StopsAfterOne(
        out=tmp_path / "out",
        shared=tmp_path / "shared",
        data=load_data("digits"),
        shelf=Shelf(),
        console=console,
    )
    assert not run_study(settings, settings.rows[:2], place)
    assert [record["index"] for record in records(tmp_path / "out", "cold")] == [0]
    assert not (tmp_path / "out" / "runs" / "warm").exists()


def test_another_configuration_is_refused(whole, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(whole[0], "--rows", "cold", text=STUDY.replace("n = 200", "n = 300"))
    assert stopped.value.code == 2
    assert "n 200 there, 300 now" in capsys.readouterr().err


def test_other_weights_are_refused(whole, capsys):
    with pytest.raises(SystemExit):
        run(whole[0], "--rows", "cold", "--model", "cold=mdeq-digits-s025")
    assert "weights_digest" in capsys.readouterr().err


def test_rows_with_one_shared_run_are_certified_once(whole, tmp_path):
    text = STUDY.replace('name = "cold"', 'name = "cold"\nshared = "digits-cold"')
    (tmp_path / "shared-small").mkdir()
    shutil.copytree(whole[0] / "runs" / "cold", tmp_path / "shared-small" / "digits-cold")
    run(tmp_path / "out", "--rows", "cold", text=text)
    assert not (tmp_path / "out" / "runs").exists()
    for key in ("accuracy", "seconds"):
        assert table(tmp_path / "out")["cold"][key] == table(whole[0])["cold"][key]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--rows", "coldd"], "did you mean 'cold'"),
        (["--model", "cold"], "must be ROW=PATH"),
        (["--model", "none=x"], "unknown row 'none'"),
        (["--model", "cold=missing.safetensors"], "no checkpoint at"),
        (["--limit", "0"], "--limit must be >= 1"),
    ],
)
def test_bad_options_give_one_line(tmp_path, capsys, options, error):
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "out", *options)
    assert stopped.value.code == 2
    assert error in capsys.readouterr().err


def test_the_clean_accuracy_is_that_of_the_whole_split(whole):
    data, model = load_data("digits"), load_model("mdeq-digits-s050")
    images, labels = data.batch(range(len(data)))
    expected = float((model(images).argmax(dim=1) == labels).double().mean())
    assert table(whole[0])["cold"]["clean"] == pytest.approx(expected, abs=1 / len(data))


DETERMINISTIC = """
title = "Monotone"
about = "Both norms."
data = "digits"
radii = [0.0, 0.1]
radii_linf = [0.0, 0.001]
[small]
skip = 100
limit = 4
[full]
skip = 1
[[rows]]
name = "lipschitz"
title = "Lipschitz"
model = "monotone"
method = "lipschitz"
[[rows]]
name = "interval"
title = "interval"
model = "monotone"
method = "interval"
"""


def test_radii_of_two_norms_stand_in_two_tables(tmp_path):
    config = MonDEQConfig(
        input_shape=(1, 8, 8), num_classes=10, width=12, m=0.5, constraint="absolute"
    )
    save_model(MonDEQ(config), tmp_path / "weights" / "monotone")
    out = tmp_path / "out"
    printed = run(out, "--weights", str(tmp_path / "weights"), text=DETERMINISTIC)
    l2, linf = printed.split("## Linf")
    assert "| Lipschitz |" in l2
    assert "| Lipschitz |" not in linf.split("##")[0]
    assert "| interval |" in linf
    assert "| interval |" not in l2
    for name, radius in (("lipschitz", 0.1), ("interval", 0.001)):
        rows, line = records(out, name), table(out)[name]
        right = [r for r in rows if r["prediction"] == r["label"] and r["radius"] >= radius]
        assert line["accuracy"][1] == len(right) / 4
        assert line["guarantees"] == {"deterministic": 4}
        assert line["facts"]["m"] > 0
