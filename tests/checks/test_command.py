"""`deqcert verify` and `deqcert attack` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import deqcert
from deqcert.checks import Verification
from deqcert.cli import app
from deqcert.cli_options import parse_distances, parse_indices
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
    options = ["--n0", "20", "--method", "standard", "--seed", "0", "--max", "2", "--skip", "80"]
    assert command("certify", *CERTIFY, *options, "--out", folder)[0] == 0
    return folder


def test_a_clean_run_exits_with_0_and_finds_its_model_by_its_digest(run: Path):
    code, out, _ = command("verify", run, "--replay", 1, "--seed", 0)
    assert code == 0
    assert "2 records checked, 1 replayed whole: clean" in " ".join(out.split())
    code, out, _ = command("verify", run, "--draws", 30, "--index", "0,80")
    assert code == 0
    assert "draws of 2 tested" in " ".join(out.split())


def test_problems_are_folded_not_cut_on_narrow_screens(run: Path):
    """A digest and the name of its field are read from the table letter by letter."""
    arguments = ["verify", str(run), "--model", "mdeq-digits-s025"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == 1
    assert "…" not in result.stdout
    cells = [line.split("│")[1:-1] for line in result.stdout.splitlines() if "│" in line]
    columns = ["".join(part.strip() for part in column) for column in zip(*cells, strict=True)]
    assert columns[1] == "configuration.weights_digest"
    run_json = json.loads((run / "run.json").read_text())
    assert columns[2] == run_json["configuration"]["weights_digest"]


def test_problems_are_named_and_exit_with_1(run: Path, tmp_path: Path):
    forged = Forgery.of(run, tmp_path / "run")
    forged.record["radius"] = forged.record["radius"] * 1.01 + 1e-3
    forged.save()
    code, out, _ = command("verify", forged.path)
    assert code == 1
    assert "image 80" in out
    assert "radius" in out
    code, out, _ = command("verify", forged.path, "--json")
    assert code == 1
    found = json.loads(out)
    assert not found["clean"]
    assert {p["field"] for p in found["problems"]} >= {"radius"}
    assert found["problems"][0]["index"] == 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--index", "7"], "no whole record of image 7"),
        (["--index", "a"], "indices must be"),
        (["--replay", "-1"], "replays must be"),
        (["--draws", "0"], "draws must be"),
        (["--model", "mdeq-digit"], "did you mean 'mdeq-digits'"),
        # Also where nothing is replayed.
        (["--device", "gpu"], "device 'gpu' is none"),
        (["--batch-size", "0"], "batch_size must be"),
        (["--seed", "-1"], "seed must be"),
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


def test_attack_writes_lines_and_a_plot_and_says_it_is_no_proof(run: Path, tmp_path: Path):
    quick = ["--steps", "3", "--samples", "4", "--n", "100", "--distances", "1,6", "--seed", "0"]
    code, out, _ = command("attack", run, *quick, "--out", tmp_path / "attack")
    assert code == 0
    text = " ".join(out.split())
    assert "1 certified image (" in text
    assert "none fell inside its radius" in text
    assert "no proof" in text
    names = {path.name for path in (tmp_path / "attack").iterdir()}
    assert names - {".lock"} == {"attack.json", "attack.jsonl", "attack.png", "attack.pdf"}
    code, out, _ = command("attack", run, *quick, "--out", tmp_path / "attack", "--json")
    assert code == 0
    assert json.loads(out)["fallen_inside"] == []
    code, out, err = command("attack", run, "--distances", "a", "--out", tmp_path / "attack")
    assert (code, out) == (2, "")
    assert "distances must be numbers" in err


def test_an_attack_that_succeeds_inside_exits_with_1(run: Path, tmp_path: Path):
    forged = Forgery.of(run, tmp_path / "run")
    forged.record["radius"] = 4.0
    forged.save()
    quick = ["--steps", "5", "--samples", "4", "--n", "200", "--distances", "1", "--seed", "0"]
    code, out, _ = command("attack", forged.path, *quick)
    assert code == 1
    assert "FELL INSIDE their radius: images 80" in " ".join(out.split())


def test_distances_are_parsed():
    assert parse_distances("1, 1.5") == (1.0, 1.5)
    with pytest.raises(ConfigurationError, match="distances must be"):
        parse_distances("1;2")
