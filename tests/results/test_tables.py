"""The table in its three forms, from the same cells."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from deqcert.results import tables
from deqcert.results.records import make_record
from deqcert.results.summary import Summary, summarize
from tests.results.made import audited, certificate

RADII = [0.0, 0.25, 1.0]


@pytest.fixture(scope="module")
def summaries() -> list[Summary]:
    standard = [
        make_record(certificate(0, radius=0.3), label=0),
        make_record(certificate(1, prediction=None, radius=0.0), label=0),
        make_record(certificate(2, radius=1.25), label=0),
    ]
    paper = [
        make_record(
            audited(i, drawn=400, disagreements=i, guarantee="none", method="srs-paper"), label=0
        )
        for i in range(3)
    ]
    return [
        summarize(standard, radii=RADII, name="standard"),
        summarize(paper, radii=RADII, name="50%_a&b"),
    ]


def cells(summaries: list[Summary]) -> dict[str, tuple[str, ...]]:
    return {line.label: line.cells for line in tables.lines(summaries)}


def test_lines_by_hand(summaries: list[Summary]) -> None:
    found = cells(summaries)
    assert found["guarantee"] == ("standard", "NONE")
    # 2 of 3 images; with probability 99.9 % at most 1 of 3 certificates at alpha 0.001 is false.
    assert found["certified accuracy at r = 0.25"] == ("66.7 % (33.3 %)", "100.0 % (-)")
    assert found["certified accuracy at r = 1.00"] == ("33.3 % (0.0 %)", "0.0 % (-)")
    assert found["abstentions"] == ("1 (33.3 %)", "0 (0.0 %)")
    assert found["average certified radius"] == ("0.516", "0.500")  # rounded down
    assert found["accuracy of one noisy draw"] == ("90.0 %", "90.0 %")
    assert found["audits drawn"] == ("-", "1,200")
    assert found["disagreements found"] == ("-", "3")
    assert found["cell evaluations per image"] == ("33,000", "33,000")
    assert found["draws n per image"] == ("1,000", "1,000")
    assert found["method"] == ("standard", "srs-paper")
    assert "method" not in cells(summaries[:1]), "a run named after its method says it once"


def test_mixed_guarantees_are_counted() -> None:
    records = [
        make_record(audited(0, drawn=400, disagreements=0), label=0),
        make_record(audited(1, drawn=400, disagreements=0), label=0),
        make_record(certificate(2, method="srs"), label=0),
    ]
    assert cells([summarize(records, radii=RADII, name="srs")])["guarantee"] == (
        "2 audited, 1 standard",
    )


def test_markdown_has_every_cell_in_a_regular_grid(summaries: list[Summary]) -> None:
    text = tables.markdown(summaries, ["WARNING: careful."])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {4}
    found = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert found[0] == ["", "standard", "50%_a&b"]
    body = {row[0]: tuple(cell.strip("*") for cell in row[1:]) for row in found[2:]}
    assert body == cells(summaries)
    assert "**NONE**" in text
    assert text.endswith("\n\nWARNING: careful.\n")


def test_latex_is_escaped_and_regular(summaries: list[Summary]) -> None:
    text = tables.latex(summaries, ["WARNING: careful."])
    assert text.startswith("% WARNING: careful.\n\\begin{tabular}{lrr}\n\\toprule\n")
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {2}
    assert rows[0] == r" & standard & 50\%\_a\&b \\"
    assert r"guarantee & standard & \textbf{NONE} \\" in rows
    assert r"certified accuracy at $r = 0.25$ & 66.7 \% (33.3 \%) & 100.0 \% (-) \\" in rows
    unescaped = [row for row in rows if re.search(r"(?<!\\)[%#_]", row)]
    assert unescaped == []


def test_latex_escapes_every_special_character() -> None:
    escaped = tables._latex_text("a\\b~c^d&e%f$g#h_i{j}")
    assert escaped == (
        r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d\&e\%f\$g\#h\_i\{j\}"
    )


def test_terminal_fits_its_width_and_loses_no_cell(summaries: list[Summary]) -> None:
    for width in (60, 80, 200):
        console = Console(width=width, color_system=None)
        with console.capture() as capture:
            console.print(*tables.terminal(summaries * 3, width=width), sep="\n")
        text = capture.get()
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
        assert "…" not in text
        assert text.count("66.7 % (33.3 %)") == 3 * 2
        assert text.count("NONE") == 3
    assert len(tables.terminal(summaries * 3, width=200)) == 1


def test_no_guarantee_is_loud_in_colour(summaries: list[Summary]) -> None:
    console = Console(width=100, color_system="standard", force_terminal=True, no_color=False)
    with console.capture() as capture:
        console.print(tables.terminal(summaries, width=100)[0])
    assert re.search(r"\x1b\[1;31m *NONE", capture.get())
