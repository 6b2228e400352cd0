"""The site builds without a warning, and asks nothing of other hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="needs mkdocs")
pytest.importorskip("mkdocstrings", reason="needs mkdocstrings")

ROOT = Path(__file__).parents[2]
# What a browser fetches by itself: links for people to follow are no requests.
FETCHED = re.compile(r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="(?:https?:)?//[^"]*"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_the_site_is_whole(site: Path) -> None:
    for page in ("index", "tutorial", "how-to/own-deq", "theory/index", "api/models", "verify"):
        assert (site / f"{page}.html").is_file(), page
    reference = (site / "api" / "certifying.html").read_text(encoding="utf-8")
    assert 'id="deqcert.smoothing.Certifier.certify"' in reference
    assert "Estimation draws" in reference


def test_doctests_of_the_reference_are_code(site: Path) -> None:
    page = (site / "api" / "solvers.html").read_text(encoding="utf-8")
    assert '<span class="gp">&gt;&gt;&gt; </span>' in page
    assert "<blockquote" not in page


def test_nothing_is_asked_of_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        found = [
            match
            for match in FETCHED.findall(page.read_text(encoding="utf-8"))
            if 'rel="canonical"' not in match
        ]
        assert found == [], page.relative_to(site)


def test_files_outside_are_named_and_pictures_are_there(site: Path) -> None:
    steps = (site / "steps.html").read_text(encoding="utf-8")
    assert "../benchmarks" not in steps
    assert "benchmarks/results/steps_per_draw.md" in steps
