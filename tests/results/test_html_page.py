"""The HTML report: its numbers are the summary's, nothing escapes, nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from deqcert.certificate import AnyCertificate
from deqcert.errors import ConfigurationError, DeqcertError, RunFolderError
from deqcert.results import RunFolder, report
from deqcert.results.reporting import PAGE, Report
from deqcert.results.tables import lines
from deqcert.results.thumbnails import THUMBNAILS, thumbnail_line
from deqcert.stats import clopper_pearson_upper
from tests.results.made import ENVIRONMENT, audited, certain, certificate
from tests.results.pages import Element, data, parse, table, unpack

NASTY = "<script>alert(1)</script>"
CONFIGURATION: dict[str, Any] = {
    "method": "standard",
    "sigma": 0.5,
    "n": 1000,
    "alpha": 0.001,
    "data": "digits",
    "split": "test",
    "data_digest": "ab" * 32,
    "class_names": ["zero", "one", "two"],
    "seed": 0,
}
TAGS = """
html head meta title link style body a header p h1 h2 h3 h4 nav ul li main noscript section svg line
g circle rect path strong span b em dl div dt dd table caption thead tbody tr td th figure fieldset
legend label input button select option figcaption form article details summary footer dialog script
"""
WEBP = b"RIFF\x1a\0\0\0WEBPVP8L\r\0\0\0\x2f\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0"
"""One pixel."""


def make_run(folder: Path, certificates: Sequence[AnyCertificate], **changes: Any) -> Path:
    with RunFolder.create_or_resume(folder, {**CONFIGURATION, **changes}, ENVIRONMENT) as run:
        for made in certificates:
            run.append(made, label=0)
    return folder


def standard(folder: Path) -> Path:
    radii = (0.3, 0.70710678, 0.9, 1.25)
    made = [certificate(i, radius=r, seconds=0.5) for i, r in enumerate(radii)]
    wrong = certificate(4, prediction=1, radius=0.4)
    abstained = certificate(5, prediction=None, radius=0.0, p_lower=0.41)
    return make_run(folder, [*made, wrong, abstained])


def serialized(folder: Path) -> Path:
    plan = {"method": "srs", "rule": "theorem-a-joint", "weight": 0.6, "strip": 0.02}
    made = [
        audited(i, drawn=400, disagreements=i, radius=0.5 - 0.1 * i, plan=plan) for i in range(4)
    ]
    reason = "12 of 100 pilot draws rule out a majority"
    gone = audited(
        4,
        drawn=1,
        disagreements=0,
        prediction=None,
        radius=0.0,
        plan={"method": "abstain", "reason": reason},
    )
    return make_run(folder, [*made, gone], method="srs")


def paper(folder: Path) -> Path:
    made = [
        audited(i, drawn=400, disagreements=0, guarantee="none", method="srs-paper", radius=2.5)
        for i in range(4)
    ]
    return make_run(folder, made, method="srs-paper")


def linf(folder: Path) -> Path:
    made = [certain(i, method="interval", radius=i / 255) for i in range(4)]
    facts = {"method": "interval", "norm": "Linf", "domain": "pixels", "data": "digits"}
    with RunFolder.create_or_resume(folder, facts, ENVIRONMENT) as run:
        for one in made:
            run.append(one, label=0)
    return folder


def page_of(runs: Sequence[Path], out: Path, **options: Any) -> tuple[Element, Report, str]:
    made = report(runs, out=out, html=True, **options)
    text = (out / PAGE).read_text(encoding="utf-8")
    return parse(text), made, text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def four(folder: Path) -> tuple[Element, Report, str]:
    runs = [
        standard(folder / "standard"),
        serialized(folder / "srs"),
        paper(folder / "srs-paper"),
        linf(folder / "interval"),
    ]
    return page_of(runs, folder / "out")


def test_numbers_are_those_of_the_table(four: tuple[Element, Report, str]) -> None:
    page, made, _ = four
    for norm in ("L2", "Linf"):
        group = [summary for summary in made.summaries if summary.norm == norm]
        found = table(page.one("section", id=f"numbers-{norm}").all("table", class_="numbers")[0])
        assert found.pop("") == [summary.name for summary in group]
        assert found == {line.label: list(line.cells) for line in lines(group)}


def test_cards_show_the_middle_radius(four: tuple[Element, Report, str]) -> None:
    page, made, _ = four
    cards = page.all("li", class_="card")
    assert len(cards) == 4
    for summary, card in zip(made.summaries, cards, strict=True):
        middle = len(summary.radii) // 2
        assert card.one("b").text == f"{100 * summary.certified_accuracy[middle]:.1f} %"
        values = [value.text for value in card.all("dd")]
        assert float(values[0]) <= summary.average_certified_radius
        assert float(values[0]) > summary.average_certified_radius - 1e-3
        assert values[1] == f"{100 * summary.abstentions / summary.images:.1f} %"


def test_curves_hold_the_numbers(four: tuple[Element, Report, str]) -> None:
    page, made, _ = four
    for norm in ("L2", "Linf"):
        traces = data(page)["pictures"][f"curves-{norm}"]["figure"]["data"]
        for number, summary in enumerate(made.summaries):
            if summary.norm != norm:
                continue
            (points,) = _parts(traces, number, "each", "markers")
            shown = dict(zip(points["x"], points["y"], strict=True))
            expected = {
                r: pytest.approx(100 * share, abs=1e-3)
                for r, share in zip(summary.radii, summary.certified_accuracy, strict=True)
                if share > 0
            }
            assert shown == expected


def _parts(traces: list[dict[str, Any]], run: int, kind: str, part: str) -> list[dict[str, Any]]:
    wanted = {"run": run, "kind": kind, "part": part}
    return [trace for trace in traces if trace["meta"] == wanted]


def test_no_step_lies_right_of_its_radius(four: tuple[Element, Report, str]) -> None:
    page, _, _ = four
    traces = data(page)["pictures"]["curves-L2"]["figure"]["data"]
    (line,) = _parts(traces, 0, "each", "line")
    steps = line["x"][1:-1]
    assert line["line"]["shape"] == "vh"
    for shown, radius in zip(steps, (0.3, 0.70710678, 0.9, 1.25), strict=True):
        assert radius - 1e-4 <= shown <= radius
    assert line["y"] == pytest.approx([400 / 6, 400 / 6, 300 / 6, 200 / 6, 100 / 6, 0], abs=1e-3)


def test_rows_hold_every_record_and_round_down(
    four: tuple[Element, Report, str], folder: Path
) -> None:
    page, _, _ = four
    rows = data(page)["images"]["L2"]
    records = [
        (number, record)
        for number, name in enumerate(("standard", "srs", "srs-paper"))
        for record in RunFolder.open(folder / name).records()
    ]
    assert rows["run"] == [number for number, _ in records]
    assert rows["index"] == [record["index"] for _, record in records]
    for shown, (_, record) in zip(rows["radius"], records, strict=True):
        assert record["radius"] - 1e-6 < shown / 1e6 <= record["radius"]
    for shown, (_, record) in zip(rows["low"], records, strict=True):
        if record["guarantee"] == "none":
            assert shown == -1
        else:
            assert record["p_lower"] - 1e-6 < shown / 1e6 <= record["p_lower"]


def test_norms_never_share_a_figure_or_a_table(four: tuple[Element, Report, str]) -> None:
    page, made, _ = four
    content = data(page)
    for norm in ("L2", "Linf"):
        allowed = {k for k, summary in enumerate(made.summaries) if summary.norm == norm}
        assert set(content["images"][norm]["run"]) == allowed
        for key, picture in content["pictures"].items():
            if key.endswith(f"-{norm}"):
                runs = {t["meta"]["run"] for t in picture["figure"]["data"] if "run" in t["meta"]}
                assert runs <= allowed
        section = page.one("section", id=f"norm-{norm}")
        boxes = [box for box in section.all("input") if "data-run" in box.attributes]
        assert {int(box.attributes["data-run"]) for box in boxes} <= allowed
    assert page.one("section", id="norm-Linf").text.count("srs") == 0


def test_no_guarantee_is_said_wherever_it_is_shown(four: tuple[Element, Report, str]) -> None:
    page, made, _ = four
    assert made.summaries[2].guarantee == "none"
    card = page.all("li", class_="card")[2]
    assert "void" in card.attributes["class"]
    assert "no guarantee" in card.text
    assert "certified" not in card.text
    legends = [label.text for label in page.all("label") if label.text.startswith("srs-paper")]
    assert len(legends) >= 2
    assert set(legends) == {"srs-paper (no guarantee)"}
    words = page.one("article", id="run-2")
    assert "Nothing is certified" in words.text
    assert "Why not" in words.text
    assert any("srs-paper has NO GUARANTEE" in found.text for found in page.all(class_="warning"))
    numbers = table(page.one("section", id="numbers-L2").all("table")[0])
    assert numbers["guarantee"][2] == "NONE"
    together = table(page.one("table", class_="together"))
    assert together[""] == ["standard", "srs"]
    figures = data(page)["pictures"]
    named = [t["name"] for t in figures["curves-L2"]["figure"]["data"] if t.get("name")]
    assert "srs-paper (no guarantee)" in named
    assert "srs-paper" not in named
    assert not _parts(figures["curves-L2"]["figure"]["data"], 2, "each", "band")
    fronts = figures["pareto-L2"]["more"]["fronts"]
    assert all(2 not in front for by_cost in fronts.values() for front in by_cost.values())
    assert data(page)["images"]["L2"]["together"][-4:] == [-1] * 4


def test_guarantees_assumptions_and_failures_in_words(four: tuple[Element, Report, str]) -> None:
    page, _, _ = four
    first = page.one("article", id="run-0").text
    assert "with probability at least 1 - alpha over the noise" in first
    assert "independent cold solve" in first
    assert "anderson:30 in float32" in first
    # 6 images at alpha 0.001: 0.006 expected, and P(Binomial(6, 0.001) <= 1) > 0.999.
    assert "Over 6 images at most 0.006 false certificates are expected" in first
    assert "no more than 1." in first
    second = page.one("article", id="run-1").text
    assert "chosen uniformly and independently of the run" in second
    assert "Nothing is assumed of the serialized labels" in second
    last = page.one("article", id="run-3").text
    assert "every image with pixels in [0, 1] closer than the radius in Linf" in last
    assert "None of its certificates can be false." in last


def test_full_configuration(four: tuple[Element, Report, str]) -> None:
    page, _, _ = four
    settings = {
        pair.one("dt").text: pair.one("dd").text
        for pair in page.one("article", id="run-0").all("dl", class_="settings")[0].all("div")
    }
    assert settings["class_names"] == "zero, one, two"
    assert set(settings) == set(CONFIGURATION)
    assert settings["sigma"] == "0.5"


def test_audits_and_abstentions_in_words(four: tuple[Element, Report, str]) -> None:
    page, _, _ = four
    said = page.one("section", id="audits-L2").text
    assert "srs: 5 images were audited, 1,601 labels solved again, 6 of them disagreed" in said
    outcomes = page.one("section", id="outcomes-L2").text
    assert "Given up in srs: 1 since … of … pilot draws rule out a majority." in outcomes


def test_structure_for_readers_without_eyes_or_mice(four: tuple[Element, Report, str]) -> None:
    page, _, text = four
    assert text.startswith("<!DOCTYPE html>") or text.lstrip().startswith("<!DOCTYPE html>")
    assert page.one("html").attributes["lang"] == "en"
    levels = [int(found.tag[1]) for found in page if re.fullmatch("h[1-6]", found.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= before + 1 for before, later in itertools.pairwise(levels))
    ids = [found.attributes["id"] for found in page if "id" in found.attributes]
    assert len(ids) == len(set(ids))
    for found in page:
        for name in ("aria-labelledby", "for"):
            if name in found.attributes:
                assert found.attributes[name] in [*ids, "view-title"]
        if found.tag == "a" and found.attributes["href"].startswith("#"):
            assert found.attributes["href"][1:] in ids
    for plot in (found for found in page if "data-picture" in found.attributes):
        assert plot.attributes["role"] == "img"
        assert len(plot.attributes["aria-label"]) > 40
    labelled = [
        box for label in page.all("label") for box in label.all("input") + label.all("select")
    ]
    assert len(labelled) == len(page.all("input")) + len(page.all("select"))
    for scroll in page.all("div", class_="scroll"):
        assert scroll.attributes["tabindex"] == "0"
        assert scroll.attributes["aria-label"]


def test_nothing_is_fetched(four: tuple[Element, Report, str]) -> None:
    page, _, _ = four
    for found in page:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = found.attributes.get(name, "#")
            assert value.startswith(("#", "data:")), (found.tag, name, value)
        assert (
            found.tag not in ("iframe", "object", "embed", "form")
            or "action" not in found.attributes
        )
    style = page.one("style").raw
    assert "url(" not in style
    assert "@import" not in style
    policy = page.all("meta", http_equiv="Content-Security-Policy")[0].attributes["content"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    assert "unsafe" not in rules["script-src"]
    own = page.all("script")[-1].raw
    hashes = {_hash(own), _hash(unpack(page, "libraries"))}
    assert set(rules["script-src"].split()) == hashes
    assert not re.search(r"\bfetch\(|XMLHttpRequest|https?://", own)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_scripts_cannot_end_early(four: tuple[Element, Report, str]) -> None:
    page, _, _ = four
    assert "</script" not in page.all("script")[-1].raw.lower()
    assert "\r" not in page.all("script")[-1].raw


def test_the_same_runs_give_the_same_page(four: tuple[Element, Report, str], folder: Path) -> None:
    _, _, text = four
    runs = [folder / name for name in ("standard", "srs", "srs-paper", "interval")]
    assert page_of(runs, folder / "again")[2] == text


def test_everything_from_records_is_escaped(tmp_path: Path) -> None:
    names = [NASTY, "</script><img src=x onerror=alert(1)>", '"><b onclick="x">']
    plan = {"method": "abstain", "reason": f"because {NASTY} & </p>"}
    made = [
        certificate(0),
        certificate(1, prediction=None, radius=0.0, plan=plan),
    ]
    changes = {"class_names": names, "data": NASTY, "split": "</title>", "note": "<i>x</i>"}
    run = make_run(tmp_path / "<b>run<" / "a&amp;b<u>", made, **changes)
    environment = json.loads((run / "run.json").read_text())
    environment["environments"] = [{"model": NASTY, "device": "</dd><script>"}]
    (run / "run.json").write_text(json.dumps(environment))
    page, _, text = page_of([run], tmp_path / "out")
    assert len(page.all("script")) == 3
    assert not page.all("img")
    assert not page.all("b", onclick="x")
    assert {found.tag for found in page} <= {
        *TAGS.split(),
    }
    assert NASTY in page.one("h1").text
    assert NASTY in page.one("article").text
    assert text.count("<script") == 3
    content = data(page)
    assert content["runs"][0]["classes"] == names
    for picture in content["pictures"].values():
        for trace in picture["figure"]["data"]:
            for value in (trace.get("name") or "", *(trace.get("y") or [])):
                assert "<" not in str(value)


def test_older_folders_have_no_pictures_and_new_ones_do(tmp_path: Path) -> None:
    run = standard(tmp_path / "run")
    page, _, _ = page_of([run], tmp_path / "old")
    assert data(page)["thumbnails"] == {}
    lines_of = [thumbnail_line(0, WEBP), "{torn", thumbnail_line(1, b"GIF89a..........")]
    foreign = ['{"index": 2, "webp": "\\"><script>"}', '{"index": "3"}', "[]", "17"]
    (run / THUMBNAILS).write_text("\n".join([*lines_of, *foreign]))
    page, _, _ = page_of([run], tmp_path / "new")
    assert data(page)["thumbnails"] == {"ab" * 32: {"0": base64.b64encode(WEBP).decode()}}


def test_runs_of_the_same_images_share_pictures(tmp_path: Path) -> None:
    runs = [standard(tmp_path / "a"), serialized(tmp_path / "b")]
    for run in runs:
        (run / THUMBNAILS).write_text(thumbnail_line(1, WEBP) + "\n")
    page, _, _ = page_of(runs, tmp_path / "out")
    assert list(data(page)["thumbnails"]) == ["ab" * 32]


def test_runs_without_records_are_named(tmp_path: Path) -> None:
    empty = make_run(tmp_path / "empty", [])
    page, made, _ = page_of([standard(tmp_path / "full"), empty], tmp_path / "out")
    assert [summary.name for summary in made.summaries] == ["full"]
    assert "empty has no records yet." in page.one("section", id="notes").text
    assert "no records yet" in page.one("article", id="run-1").text
    only, made, _ = page_of([empty], tmp_path / "alone")
    assert made.summaries == ()
    assert str(made)
    assert "no records yet" in only.one("section", id="runs").text
    assert not only.all("section", class_="norm")
    with pytest.raises(RunFolderError, match="has no records yet"):
        report(empty)


def test_nothing_but_abstentions(tmp_path: Path) -> None:
    made = [certificate(i, prediction=None, radius=0.0, p_lower=0.3) for i in range(3)]
    page, _, _ = page_of([make_run(tmp_path / "run", made)], tmp_path / "out")
    card = page.one("li", class_="card")
    assert card.one("b").text == "0.0 %"
    assert [value.text for value in card.all("dd")][:2] == ["0.000", "100.0 %"]


def test_unfinished_runs_say_how_far_they_are(tmp_path: Path) -> None:
    run = standard(tmp_path / "run")
    progress = {
        **{"pid": 1, "host": "here", "started": 0.0, "updated": 1.0, "done": 6, "total": 50},
        **{"workers": {}, "finished": False},
    }
    (run / "progress.json").write_text(json.dumps(progress))
    page, _, _ = page_of([run], tmp_path / "out")
    assert "6 of 50 images so far" in page.one("li", class_="card").text
    # alpha is split over all images that are planned, not over those that happen to be done.
    assert table(page.one("table", class_="together"))["split over images"] == ["50"]


def test_one_run_is_written_into_its_own_folder(tmp_path: Path) -> None:
    run = standard(tmp_path / "run")
    made = report(run, html=True)
    assert run / "report" / PAGE in made.files
    assert (run / "report" / PAGE).is_file()
    assert (run / "report" / "table.md").is_file()


def test_several_runs_need_a_folder(tmp_path: Path) -> None:
    runs = [standard(tmp_path / "a"), serialized(tmp_path / "b")]
    with pytest.raises(ConfigurationError, match="needs a folder"):
        report(runs, html=True)


@pytest.mark.parametrize("missing", ["plotly.offline", "jinja2"])
def test_what_to_install_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    from deqcert.results.html import bundle

    bundle.libraries.cache_clear()
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DeqcertError, match=r"pip install \"deqcert\[report\]\""):
        report(standard(tmp_path / "run"), html=True)


def test_published_rows_stand_beside_the_same_setting_only(tmp_path: Path) -> None:
    same = {"data": "cifar10", "sigma": 0.5}
    titles = {}
    for model in ("mdeq-large", "mdeq-small-s050", "mdeq-small-imagenet", None):
        run = make_run(tmp_path / str(model), [certificate(0)], **same)
        content = json.loads((run / "run.json").read_text())
        content["environments"] = [{"model": model}]
        (run / "run.json").write_text(json.dumps(content))
        page, _, _ = page_of([run], tmp_path / f"out-{model}")
        titles[model] = data(page)["pictures"]["curves-L2"]["more"]["published"]
    assert titles["mdeq-large"][:2] == ["MDEQ-30A", "SRS-MDEQ-3A (no guarantee)"]
    assert "ResNet-110" in titles["mdeq-small-s050"]
    assert titles["mdeq-small-imagenet"] == []
    assert titles[None] == []


def test_published_numbers_are_those_of_the_experiments() -> None:
    from experiments.published import published_tables as experiments

    from deqcert.results.html.published import published_tables

    known = {
        (name, row.title): row.accuracy
        for name, table in experiments().items()
        for row in table.rows.values()
    }
    clean = {row.title: row.clean for row in experiments()["deterministic-mnist"].rows.values()}
    compared = 0
    for found in published_tables():
        for row in found["rows"]:
            key = (found["name"], row["title"])
            if found["setting"]["family"] == "noise":
                assert tuple(row["accuracy"]) == known[key]
                compared += 1
            else:
                title = row["title"].replace("\N{GREEK SMALL LETTER GAMMA}", "gamma")
                (value,) = [v for name, v in clean.items() if name.split(":")[0] == title]
                assert row["accuracy"] == [value]
                compared += 1
    assert compared >= 15


def test_a_log_of_others_stands_beside(tmp_path: Path) -> None:
    log = tmp_path / "log.tsv"
    rows = ["0\t0\t0\t0.9\t1\t0:00:15", "1\t0\t-1\t0.0\t0\t0:00:15", "2\t0\t1\t0.4\t0\t0:00:15"]
    log.write_text("\n".join(["idx\tlabel\tpredict\tradius\tcorrect\ttime", *rows]) + "\n")
    page, _, _ = page_of([standard(tmp_path / "run"), log], tmp_path / "out")
    assert "as published" in page.all("li", class_="card")[1].text
    assert table(page.one("table", class_="together"))[""] == ["run"]
    assert "Nothing of it was checked here" in page.one("article", id="run-1").text


def test_command_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from deqcert.cli import app

    run = standard(tmp_path / "run")
    found = CliRunner().invoke(app, ["report", str(run), "--html", "--out", str(tmp_path / "out")])
    assert found.exit_code == 0, found.output
    assert "report.html" in found.output
    assert (tmp_path / "out" / PAGE).is_file()


def test_upper_ends_of_the_intervals(tmp_path: Path) -> None:
    """Draws that count for no class might be of any; what was never audited bounds nothing."""
    made = [
        certificate(0),
        certificate(1, counts=(900, 40, 30)),  # 30 draws count for no class
        certificate(2, counts=(1000, 0, 0), count=1000),
    ]
    page, _, _ = page_of([make_run(tmp_path / "run", made)], tmp_path / "out")
    found = data(page)["images"]["L2"]["high"]
    for shown, most in zip(found, (900, 930, 1000), strict=True):
        exact = clopper_pearson_upper(most, 1000, 0.001)
        assert exact <= shown / 1e6 < exact + 1e-6
    page, _, _ = page_of([serialized(tmp_path / "srs")], tmp_path / "audited")
    assert data(page)["images"]["L2"]["high"] == [-1] * 5
