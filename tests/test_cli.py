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
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from deqcert import __version__
from deqcert.cli import app
from deqcert.cli_certify import certify
from deqcert.cli_options import parse_audit, parse_radii
from deqcert.data import load_data
from deqcert.deterministic import IntervalCertifier, LipschitzCertifier
from deqcert.errors import ConfigurationError
from deqcert.models import save_model
from deqcert.models.bfloat16_products import has_bfloat16_products
from deqcert.results import RunFolder
from deqcert.smoothing import Certifier
from deqcert.training.recipes import RECIPES
from tests.checks.runs import monotone_model

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
        (["--noise-stream", "numpy-philox"], "did you mean 'numpy-philox-block16-float32-v1'"),
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


def test_a_run_keeps_its_noise_stream(tmp_path: Path):
    run, name = tmp_path / "run", "torch-philox4x32-boxmuller-float32-v1"
    options = [*QUICK, "--method", "standard", "--out", run]
    assert deqcert("certify", *options, "--max", 1, "--noise-stream", "device")[0] == 0
    code, _, err = deqcert("certify", *options, "--max", 2)
    assert code == 2
    assert f"noise '{name}' there, 'numpy-philox-block16-float32-v1' now" in err
    assert len(err.splitlines()) == 1
    assert deqcert("certify", *options, "--max", 2, "--noise-stream", name)[0] == 0
    code, out, _ = deqcert("verify", run, "--replay", 2)
    assert code == 0, out
    _, out, _ = deqcert("certify", "--help")
    shown = " ".join(out.replace("│", "").split())
    assert "host (NumPy's), device (PyTorch's" in shown


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
    options = inspect.signature(certify).parameters
    for kind in (Certifier, LipschitzCertifier, IntervalCertifier):
        for name, parameter in inspect.signature(kind).parameters.items():
            if name in ("model", "sigma", "dtype", "batch_size"):
                continue
            assert options[name].default == parameter.default, name


@pytest.fixture(scope="module")
def monotone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of monotone DEQs for digits, one for each deterministic method."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "lipschitz": save_model(monotone_model(), folder / "quadratic.safetensors"),
        "interval": save_model(monotone_model("absolute"), folder / "absolute.safetensors"),
    }


def test_deterministic_certify_report_verify_attack(tmp_path: Path, monotone: dict[str, Path]):
    options = {
        "lipschitz": ["--solver", "picard:40:1e-6"],
        "interval": ["--largest", "0.1", "--resolution", "1e-3", "--steps", "30"],
    }
    for method, model in monotone.items():
        command = ["--data", "digits", "--model", model, "--method", method, *options[method]]
        run = tmp_path / method
        for limit in (2, 4):
            code, out, err = deqcert(
                "certify", *command, "--skip", 40, "--max", limit, "--batch-size", 2, "--out", run
            )
            assert code == 0, err
            assert f"{limit} records" in out
        code, out, err = deqcert("verify", run, "--model", model, "--replay", 2)
        assert code == 0, out
        quick = ["--model", model, "--steps", "5", "--distances", "1,20"]
        code, out, err = deqcert("attack", run, *quick)
        assert code == 0, err
        assert "each judgement a proof" in " ".join(out.split())
        code, out, _ = deqcert("report", run)
        assert code == 0
    runs = [tmp_path / method for method in monotone]
    code, out, _ = deqcert("report", *runs, "--linf-radii", "0,1/255")
    assert code == 0
    assert out.index("Certificates in L2") < out.index("Certificates in Linf")
    assert "Linf r = 1/255" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "lipschitz", "--sigma", "0.5"], "--sigma is for the methods that draw noise"),
        (["--method", "lipschitz", "--n", "100"], "--n is for the methods that draw noise"),
        (["--method", "interval", "--seed", "0"], "--seed is for the methods that draw noise"),
        (["--method", "lipschitz", "--noise-stream", "x"], "--noise-stream is for the methods"),
        (["--method", "interval", "--solver", "picard:9"], "--solver is for method lipschitz"),
        (["--method", "lipschitz", "--no-within-pixels"], "--within-pixels is for method interval"),
        (["--sigma", "0.5", "--steps", "9"], "--steps is for method interval, not for method srs"),
        (["--method", "interval", "--steps", "0"], "steps must be an integer >= 1"),
        (["--method", "interval"], "constraint='absolute'"),
        (["--method", "lipshitz"], "did you mean 'lipschitz'"),
        (["--method", "standard"], "method standard needs --sigma"),
        (["--sigma", "1", "--method", "standard", "--audit", "9"], "--audit is for the methods"),
        (["--sigma", "1", "--method", "standard", "--serial", "picard:1"], "not for method stand"),
        (["--sigma", "1", "--method", "proved", "--audit", "auto"], "--audit is for the methods"),
        (["--method", "lipschitz", "--model", "mdeq-digits"], "are for monotone DEQs"),
    ],
)
def test_options_of_other_methods_are_refused(
    tmp_path: Path, monotone: dict[str, Path], arguments: list[str], message: str
):
    base = ["--data", "digits", "--model", monotone["lipschitz"], "--out", tmp_path / "run"]
    code, out, err = deqcert("certify", *base, *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
@pytest.mark.parametrize("command", ["certify", "predict", "train"])
def test_devices_that_are_not_here_are_refused(tmp_path: Path, command: str, device: str):
    base = ["--data", "digits", "--model", "mdeq-digits", "--sigma", "0.5", "--device", device]
    out_dir = [] if command == "predict" else ["--out", tmp_path / "run"]
    code, out, err = deqcert(command, *base, *out_dir)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: device {device!r} ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, file / "below"):
        code, _, err = deqcert("certify", *QUICK, "--max", 1, "--out", place)
        assert code == 2
        assert err == f"error: cannot make a folder of {place}: a file is in its way\n"
    assert file.read_text() == "mine"


@pytest.mark.parametrize(("instructions", "told"), [("AVX2", True), ("AVX512", False)])
def test_slow_products_of_a_training_are_told(tmp_path, monkeypatch, instructions, told):
    has_bfloat16_products.cache_clear()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    base = ["--data", "digits", "--model", "mdeq-digits", "--sigma", "0.5"]
    recipe = ["--recipe", "short-solve", "--batch-size", 100_000]  # more than there are: it ends
    code, _, err = deqcert("train", *base, *recipe, "--out", tmp_path / "run")
    has_bfloat16_products.cache_clear()
    assert code == 2
    assert err.splitlines()[-1].startswith("error: batch_size 100000 is above")
    assert ("note: this processor has no instructions for bfloat16" in err) is told


def test_the_published_rule_is_marked_while_it_runs(tmp_path: Path):
    run = ["certify", *QUICK, "--max", 1, "--out", tmp_path / "run"]
    _, _, err = deqcert(*run, "--method", "srs-paper")
    assert err.startswith("srs-paper (NO GUARANTEE): 1/1 image 0: ")


def test_times_that_are_none_name_their_option(tmp_path: Path):
    base = ["--data", "digits", "--model", "mdeq-digits", "--sigma", "0.5"]
    code, _, err = deqcert("train", *base, "--minutes", 0, "--out", tmp_path / "run")
    assert (code, err) == (2, "error: --minutes must be > 0, but got 0\n")


def run_program(*arguments: str, stdout: Any = subprocess.PIPE, **variables: str):
    """Run the program itself, as a terminal would."""
    code = "from deqcert.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_any_encoding_shows_what_it_can(encoding: str):
    wide = run_program("certify", "--help", PYTHONIOENCODING=encoding, COLUMNS="60")
    assert (wide.returncode, wide.stderr) == (0, b"")
    assert b"--sigma" in wide.stdout
    wide.stdout.decode(encoding)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_the_output_is_one_line():
    with open("/dev/full", "wb") as full:
        for arguments in (["--help"], ["models"]):
            result = run_program(*arguments, stdout=full)
            assert result.returncode == 2
            lines = result.stderr.decode().splitlines()
            assert lines == ["error: cannot write what there is to print: No space left on device"]


def test_the_version_is_printed():
    assert deqcert("--version") == (0, f"deqcert {__version__}\n", "")


def test_the_help_of_train_names_every_recipe(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "300")
    _, out, _ = deqcert("train", "--help")
    names = [name for name in RECIPES if not name.startswith("published")]
    assert [name for name in (*names, "published") if name not in out] == []


def test_models_and_data_are_listed():
    _, out, _ = deqcert("models")
    listed = {words[0]: words[1:] for line in out.splitlines() if len(words := line.split()) > 1}
    assert listed["mdeq-digits-s025"] == ["1x8x8", "10", "digits", "0.25", "96.8", "%"]
    assert listed["mdeq-digits"] == ["1x8x8", "10", "(short", "name)", "0.5"]
    assert listed["mdeq-large"] == ["3x32x32", "10", "-"]
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
    assert parse_radii("0,1/255,2/255") == [0.0, 1 / 255, 2 / 255]
    assert parse_radii(None) is None
    with pytest.raises(ConfigurationError, match="radii must be numbers"):
        parse_radii("0;1")
    with pytest.raises(ConfigurationError, match="radii must be numbers"):
        parse_radii("1/0")
