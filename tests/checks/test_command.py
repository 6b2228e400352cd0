"""`deqcert verify` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import deqcert
from deqcert.checks import Verification
from deqcert.cli import app
from deqcert.cli_options import parse_indices
from deqcert.errors import ConfigurationError
from tests.checks.runs import Forgery

CERTIFY = ["--data", "digits", "--model", "mdeq-digits", "--sigma", "0.5", "--n", "100"]


def command(*arguments: str | Path) -> tuple[int, str, str]:
    """Run a command; return exit code, standard output, standard error."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    options = ["--n0", "20", "--method", "standard", "--seed", "0", "--max", "2", "--skip", "40"]
    assert command("certify", *CERTIFY, *options, "--out", folder)[0] == 0
    return folder


def test_a_clean_run_exits_with_0_and_finds_its_model_by_its_digest(run: Path):
    code, out, _ = command("verify", run, "--replay", 1, "--seed", 0)
    assert code == 0
    assert "2 records checked, 1 replayed whole: clean" in " ".join(out.split())
    code, out, _ = command("verify", run, "--draws", 30, "--index", "0,40")
    assert code == 0
    assert "draws of 2 tested" in " ".join(out.split())


def test_problems_are_named_and_exit_with_1(run: Path, tmp_path: Path):
    forged = Forgery.of(run, tmp_path / "run")
    forged.record["radius"] = forged.record["radius"] * 1.01 + 1e-3
    forged.save()
    code, out, _ = command("verify", forged.path)
    assert code == 1
    assert "image 40" in out
    assert "radius" in out
    code, out, _ = command("verify", forged.path, "--json")
    assert code == 1
    found = json.loads(out)
    assert not found["clean"]
    assert {p["field"] for p in found["problems"]} >= {"radius"}
    assert found["problems"][0]["index"] == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--index", "7"], "no whole record of image 7"),
        (["--index", "a"], "indices must be"),
        (["--replay", "-1"], "replays must be"),
        (["--draws", "0"], "draws must be"),
        (["--model", "mdeq-digit"], "did you mean 'mdeq-digits'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run: Path, arguments: list[str], message: str):
    code, out, err = command("verify", run, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_another_model_is_a_problem_not_an_error(run: Path):
    code, out, _ = command("verify", run, "--model", "mdeq-digits-s025", "--replay", 1, "--json")
    assert code == 1
    assert [p["field"] for p in json.loads(out)["problems"]] == ["configuration.weights_digest"]
    assert command("verify", run.parent / "nothing")[0] == 2


def test_verify_is_a_public_name(run: Path):
    found = deqcert.verify(run)
    assert isinstance(found, Verification)
    assert found.clean


def test_indices_are_parsed():
    assert parse_indices(None) == []
    assert parse_indices("0, 40") == [0, 40]
    with pytest.raises(ConfigurationError, match="indices must be"):
        parse_indices("1;2")
