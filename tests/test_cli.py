"""The command line, run as a user runs it: in a process of its own."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from deqcert.cli import app
from deqcert.cli_options import parse_audit, parse_radii
from deqcert.data import load_data
from deqcert.errors import ConfigurationError
from deqcert.results import RunFolder
from deqcert.smoothing import Certifier

BASE = ["--data", "digits", "--model", "mdeq-digits", "--sigma", "0.5"]
QUICK = [*BASE, "--n", "200", "--n0", "20", "--seed", "0"]


def deqcert(*arguments: str | Path) -> tuple[int, str, str]:
    """Run a command; return exit code, standard output, standard error."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_certify_resume_report(tmp_path: Path):
    run = tmp_path / "run"
    code, out, _ = deqcert("certify", *QUICK, "--max", 2, "--out", run)
    assert code == 0
    assert "2 records" in out
    code, out, err = deqcert("certify", *QUICK, "--max", 3, "--out", run)
    assert code == 0
    assert "3 records" in out
    assert "resuming, 2 of 3" in err
    code, out, _ = deqcert("report", run, "--radii", "0,0.1,0.2")
    assert code == 0
    assert "0.1" in out
    assert (run / "report" / "certified_accuracy.png").stat().st_size > 10_000
    assert (run / "report" / "certified_accuracy.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "mdeq-digit"], "did you mean 'mdeq-digits'"),
        (["--data", "digitz"], "did you mean 'digits'"),
        (["--sigma", "0"], "sigma must be finite and > 0"),
        (["--alpha", "1"], "alpha must lie in (0, 1)"),
        (["--n", "9", "--method", "standard"], "10"),
        (["--n0", "0"], "n0 must be"),
        (["--audit", "201"], "audit"),
        (["--audit", "lots"], "audit must be auto"),
        (["--reference", "andersson:30"], "did you mean 'anderson'"),
        (["--method", "srs-papers"], "did you mean 'srs-paper'"),
        (["--model", "/nowhere/model.safetensors"], "/nowhere/model.safetensors"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments, message):
    code, out, err = deqcert("certify", *QUICK, *arguments, "--out", tmp_path / "run")
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "run" / "records.jsonl").exists()


def test_a_run_of_another_configuration_is_refused(tmp_path: Path):
    run = tmp_path / "run"
    assert deqcert("certify", *QUICK, "--max", 1, "--out", run)[0] == 0
    before = (run / "records.jsonl").read_bytes()
    code, _, err = deqcert("certify", *QUICK, "--alpha", "0.01", "--max", 1, "--out", run)
    assert code == 2
    assert "alpha 0.001 there, 0.01 now" in err
    assert (run / "records.jsonl").read_bytes() == before


def test_a_truncated_checkpoint_is_refused(tmp_path: Path):
    from deqcert.models import load_model, save_model

    whole = tmp_path / "whole.safetensors"
    save_model(load_model("mdeq-digits"), whole)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-100])
    code, _, err = deqcert("certify", *QUICK, "--model", cut, "--out", tmp_path / "run")
    assert code == 2
    assert "cut.safetensors" in err
    assert len(err.splitlines()) == 1


def test_ctrl_c_leaves_a_resumable_run(tmp_path: Path):
    run = tmp_path / "run"
    # A process started in the background ignores Ctrl-C, and so do its children: undo that.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from deqcert.cli import main; main()"
    options = ["certify", *BASE, "--n", "2000", "--seed", "0"]
    command = [sys.executable, "-c", code, *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [*command, "--out", str(run)], env=environment, stderr=subprocess.PIPE, text=True
    )
    records = run / "records.jsonl"
    # The third may be caught before it is safe on disk, and is then taken back whole.
    while not (records.exists() and records.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    done = len(RunFolder.open(run).done)
    assert done >= 2
    code, out, _ = deqcert(
        "certify", *BASE, "--n", "2000", "--seed", "0", "--max", done + 1, "--out", run
    )
    assert code == 0
    assert f"{done + 1} records" in out


def test_predict_of_an_index_and_of_a_file(tmp_path: Path):
    example = load_data("digits")[0]
    code, out, _ = deqcert("predict", *BASE, "--index", 0, "--seed", 0)
    assert code == 0
    assert out.strip() == f"class {example.label}"
    file = tmp_path / "digit.png"
    pixels = (example.image[0] * 255).round().byte().numpy()
    Image.fromarray(pixels).save(file)
    model = ["--model", "mdeq-digits", "--sigma", "0.5", "--seed", "0"]
    code, out, _ = deqcert("predict", *model, "--image", file)
    assert code == 0
    assert out.strip() == f"class {example.label}"
    Image.fromarray(pixels).resize((9, 8)).save(file)
    code, _, err = deqcert("predict", *model, "--image", file)
    assert code == 2
    assert "has 9 x 8 pixels, but the model takes 8 x 8" in err
    code, _, err = deqcert("predict", *model)
    assert code == 2
    assert "--image FILE or --data NAME" in err


def test_a_config_file_gives_options_and_the_command_line_wins(tmp_path: Path):
    config = tmp_path / "run.toml"
    config.write_text('method = "standard"\nn = 150\nn0 = 20\nseed = 3\nbatch-size = 64\n')
    run = tmp_path / "run"
    arguments = [*BASE, "--config", config, "--n", "120", "--max", 1, "--out", run]
    assert deqcert("certify", *arguments)[0] == 0
    configuration = json.loads((run / "run.json").read_text())["configuration"]
    assert configuration["method"] == "standard"
    assert (configuration["n"], configuration["seed"]) == (120, 3)
    config.write_text("sigmaa = 1\n")
    code, _, err = deqcert("certify", *arguments)
    assert code == 2
    assert "sigmaa" in err


def test_help_names_units_and_defaults():
    for command in ("certify", "predict", "train", "report", "models", "data"):
        code, out, _ = deqcert(command, "--help")
        assert code == 0
        assert "Usage" in out
    _, out, _ = deqcert("certify", "--help")
    assert "pixel units" in out
    assert "10000" in out
    assert "0.001" in out


def test_command_line_defaults_are_those_of_the_certifier():
    from deqcert import cli

    options = inspect.signature(inspect.unwrap(cli.certify)).parameters
    for name, parameter in inspect.signature(Certifier).parameters.items():
        if name in ("model", "sigma", "dtype"):
            continue
        assert options[name].default == parameter.default, name


def test_models_and_data_are_listed():
    _, out, _ = deqcert("models")
    assert "mdeq-digits" in out
    _, out, _ = deqcert("data")
    assert "cifar10" in out
    assert "digits" in out


def test_import_brings_in_no_torch():
    code = "import sys, deqcert; deqcert.DeqcertError; import deqcert.stats, deqcert.results; "
    code += "assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_audits_and_radii_are_parsed():
    assert parse_audit("auto") == "auto"
    assert parse_audit("400") == 400
    assert parse_audit("0.1") == 0.1
    assert parse_audit("10%") == pytest.approx(0.1)
    assert parse_radii("0, 0.25,1") == [0.0, 0.25, 1.0]
    assert parse_radii(None) is None
    with pytest.raises(ConfigurationError, match="radii must be numbers"):
        parse_radii("0;1")
