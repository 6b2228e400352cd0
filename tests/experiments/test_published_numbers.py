"""The published numbers of `published.toml` against docs/paper.md, read and written out here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from experiments.published import find_table, published_tables

PAPER = Path(__file__).parents[2] / "docs" / "paper.md"

LARGE = {
    "MDEQ-1A": ([28, 19, 13, 8, 5, 3, 1], 1.06),
    "MDEQ-5A": ([50, 41, 32, 21, 15, 10, 6], 2.59),
    "MDEQ-30A": ([67, 55, 45, 33, 23, 16, 12], 12.89),
    "SRS-MDEQ-1N": ([61, 52, 44, 31, 22, 15, 11], 1.02),
    "SRS-MDEQ-1A": ([63, 53, 45, 32, 22, 16, 12], 1.79),
    "SRS-MDEQ-3A": ([66, 54, 45, 33, 23, 16, 11], 2.55),
}
IMAGENET = {
    "MDEQ-1B": ([2, 2, 1, 1, 1, 1, 0], 7.30),
    "MDEQ-5B": ([39, 33, 28, 23, 19, 15, 11], 31.77),
    "MDEQ-14B": ([45, 39, 33, 28, 22, 17, 11], 88.33),
    "SRS-MDEQ-1B": ([40, 34, 32, 27, 21, 16, 10], 15.21),
    "SRS-MDEQ-3B": ([44, 39, 33, 28, 22, 17, 11], 27.48),
}
SMALL = {
    "MDEQ-30A": [62, 50, 38, 30, 22, 13, 9],
    "SRS-MDEQ-3A": [60, 50, 38, 29, 21, 12, 8],
    "ResNet-110": [65, 54, 41, 32, 23, 15, 9],
}
SMOOTHADV = {
    "MDEQ-30A, SmoothAdv": [62, 54, 43, 37, 30, 23, 14],
    "SRS-MDEQ-3A, SmoothAdv": [60, 52, 43, 36, 29, 22, 14],
}


@pytest.mark.parametrize(
    ("name", "expected", "step"),
    [("cifar10-large-s050", LARGE, 0.25), ("imagenet-small-s100", IMAGENET, 0.5)],
)
def test_tables_with_times(name, expected, step):
    table = find_table(name)
    assert table.radii == tuple(step * k for k in range(7))
    found = {title: (list(row.accuracy), row.seconds) for title, row in table.rows.items()}
    assert found == expected
    for title, (accuracy, seconds) in expected.items():  # the same cells stand in the document
        cells = " | ".join([title, *map(str, accuracy), f"{seconds:.2f}"])
        assert f"| {cells}" in PAPER.read_text()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cifar10-small-s050", SMALL), ("cifar10-small-smoothadv-s050", SMOOTHADV)],
)
def test_tables_of_the_text(name, expected):
    table = find_table(name)
    assert table.radii == tuple(0.25 * k for k in range(7))
    found = {title: list(row.accuracy) for title, row in table.rows.items() if row.accuracy}
    assert found == expected
    for accuracy in expected.values():
        assert "/".join(map(str, accuracy)) in PAPER.read_text()


def test_average_radii():
    def radii(name: str) -> list[float | None]:
        rows = find_table(name).rows
        return [
            rows[t].average_radius for t in ("MDEQ-1A", "MDEQ-30A", "SRS-MDEQ-1A", "SRS-MDEQ-3A")
        ]

    assert radii("cifar10-large-s050") == [0.27, 0.62, 0.59, 0.62]
    assert radii("cifar10-small-s050") == [0.23, 0.59, 0.56, 0.59]
    text = PAPER.read_text()
    assert "LARGE: 1A .27, 30A .62, SRS-1A .59, SRS-3A .62; SMALL: .23/.59/.56/.59" in text
    assert find_table("cifar10-small-s050").rows["MDEQ-30A"].seconds == 3.08


def test_starts():
    rows = find_table("cifar10-large-clean-start-s050").rows
    assert {title: row.accuracy for title, row in rows.items()} == {
        "LARGE, SRS-MDEQ-1A, clean start": (56,),
        "LARGE, SRS-MDEQ-3A, clean start": (64,),
        "LARGE, SRS-MDEQ-1A, previous start": (63,),
        "LARGE, SRS-MDEQ-3A, previous start": (66,),
    }
    assert "1A 56 against 63 at r = 0, 3A 64 against 66" in PAPER.read_text()


def test_deterministic_bounds():
    rows = find_table("deterministic-mnist").rows
    errors = {title: 100 - row.clean for title, row in rows.items() if row.clean is not None}
    assert list(errors) == [
        "monDEQ FC-40, m = 20: Lipschitz constant 3.84",
        *(f"LBEN FC-80, gamma = {gamma}" for gamma in ("0.1", "1", "5")),
    ]
    assert list(errors.values()) == pytest.approx([4.4, 10.1, 2.36, 1.81])
    text = PAPER.read_text()
    assert "Lipschitz 3.84, error 4.4 %; 128-channel conv: 48.6" in text
    assert "gamma .1 / 1 / 5 gives 10.1 / 2.36 / 1.81 % error" in text


def test_what_is_serialized_is_marked_and_every_source_is_named():
    for table in published_tables().values():
        assert "than ours" in table.source
        assert re.search(r"20\d\d", table.source)
        for title, row in table.rows.items():
            assert (row.claim == "none") == ("SRS" in title), title
