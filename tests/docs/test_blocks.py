"""Every code block of the documents runs as it stands, one document after the other block by block.

A block that is not run is marked so in the document, right above it, with its reason:
``<!-- skip: next "reason" -->``. Blocks of a document share their names and their folder, which
begins empty. What only shows something is a block of another language (`SHOWN`).
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser
from typer.testing import CliRunner

from deqcert.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```+ *(\S*)", re.MULTILINE)
SHOWN = {"text", "json", "bibtex", "toml", "yaml"}
RUN = {"python", "sh", "bash"}
MOST_SKIPPED = 25


def _names() -> list[str]:
    return [str(page.relative_to(ROOT)) for page in PAGES]


def run_line(line: str) -> None:
    """Run one line of a shell: `deqcert` in this process, anything else by the shell."""
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] != "deqcert" or any(word in (";", "&&", "|", ">") for word in words):
        subprocess.run(["bash", "-euc", line], check=True)
        return
    result = CliRunner().invoke(app, words[1:])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, f"{line}\n{result.output}"


def run_shell(example: Example) -> None:
    """Run a block of shell commands, each on its own line or continued by a backslash."""
    for line in str(example.parsed).replace("\\\n", " ").splitlines():
        run_line(line)


SYBIL = Sybil(
    parsers=[
        SkipParser(),
        PythonCodeBlockParser(),
        CodeBlockParser(language="sh", evaluator=run_shell),
        CodeBlockParser(language="bash", evaluator=run_shell),
    ]
)


def without(library: str) -> bool:
    """Whether a library is missing; for the conditions of marks."""
    return importlib.util.find_spec(library) is None


@pytest.mark.parametrize("name", _names())
def test_blocks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = SYBIL.parse(ROOT / name)
    examples = list(document.examples())
    if not examples:
        return
    monkeypatch.chdir(tmp_path)
    document.namespace["without"] = without
    state = torch.random.get_rng_state()
    for example in examples:
        try:
            example.evaluate()
        except BaseException as error:
            if type(error).__name__ == "SkipTest":  # one block, not its document
                continue
            raise AssertionError(f"{name}, line {example.line}: {error!r}") from error
    torch.random.set_rng_state(state)


@pytest.mark.parametrize("name", _names())
def test_every_block_says_what_it_is(name: str) -> None:
    opened = FENCE.findall((ROOT / name).read_text(encoding="utf-8"))[::2]
    assert set(opened) <= RUN | SHOWN


def test_few_blocks_are_not_run() -> None:
    marks = [
        mark
        for name in _names()
        for mark in re.findall(r"<!-- skip: .*-->", (ROOT / name).read_text(encoding="utf-8"))
    ]
    assert all(re.fullmatch(r'<!-- skip: next (".+"|if\(.+, reason=".+"\)) -->', m) for m in marks)
    assert len(marks) <= MOST_SKIPPED
