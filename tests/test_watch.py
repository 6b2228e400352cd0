"""`deqcert watch`, run as a user runs it: beside the run it watches."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deqcert.results import RunFolder
from deqcert.results.progress import ProgressFile
from tests.results.made import CONFIGURATION, ENVIRONMENT, certificate
from tests.test_cli import QUICK, deqcert

MAIN = "import sys; sys.argv[0] = 'deqcert'; from deqcert.cli import main; main()"


def start(*arguments: str | Path, program: str = MAIN, **settings: object) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        **settings,  # pyright: ignore[reportArgumentType]
    )


RUN = """
import sys, time
from deqcert.results import RunFolder
from deqcert.results.progress import ProgressFile
from tests.results.made import CONFIGURATION, ENVIRONMENT, certificate
with RunFolder.create_or_resume(sys.argv[1], CONFIGURATION, ENVIRONMENT) as run:
    progress = ProgressFile(sys.argv[1], done=0, total=6)
    print("begun", flush=True)
    for index in range(6):
        progress.work("local", index, "estimation", 40, 1000)
        time.sleep(0.3)
        run.append(certificate(index), label=0)
        progress.finished_image()
    progress.close()
"""


def test_watch_follows_a_run_to_its_end(tmp_path: Path) -> None:
    with start(tmp_path, program=RUN, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "begun\n"
        with start("watch", tmp_path, "--every", "0.1", stdout=subprocess.PIPE) as watch:
            said, _ = watch.communicate(timeout=300)
    assert (run.returncode, watch.returncode) == (0, 0)
    lines = said.splitlines()
    assert lines[0] == f"{tmp_path}: standard, sigma 0.5"
    assert lines[-1] == "finished: 6 of 6 images"
    assert lines[-2].startswith("6/6 images (100 %) | certified so far: r = 0.00 100.0 %")
    counts = [int(line.partition("/")[0]) for line in lines[1:-1]]
    assert counts == sorted(counts)


def test_watch_follows_a_real_run_to_its_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    certify = start("certify", *QUICK, "--max", "5", "--out", run, stderr=subprocess.PIPE)
    with certify:
        while not (run / "run.json").exists() and certify.poll() is None:
            time.sleep(0.05)
        with start("watch", run, "--every", "0.05", stdout=subprocess.PIPE) as watch:
            said, _ = watch.communicate(timeout=300)
        certify.communicate(timeout=300)
    assert (certify.returncode, watch.returncode) == (0, 0)
    lines = said.splitlines()
    assert lines[0] == f"{run}: srs, sigma 0.5, n 200, digits test"
    assert lines[-1] == "finished: 5 of 5 images"
    assert lines[-2].startswith("5/5 images (100 %)")
    counts = [int(line.partition("/")[0]) for line in lines[1:-1]]
    assert counts == sorted(counts)
    assert counts[-1] == 5


def test_once_prints_and_leaves(tmp_path: Path) -> None:
    with RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT) as run:
        ProgressFile(tmp_path, done=0, total=3)
        run.append(certificate(0), label=0)
        code, out, err = deqcert("watch", tmp_path, "--once", "--radii", "0,0.5,0.6")
    assert (code, err) == (0, "")
    assert "1/3 images (33 %)" in out
    assert "r = 0.0 100.0 %, r = 0.5 100.0 %, r = 0.6 0.0 %" in out
    assert "running (process" in out


def test_a_run_that_ended_before_its_end_is_exit_code_1(tmp_path: Path) -> None:
    with RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT) as run:
        run.append(certificate(0), label=0)
        ProgressFile(tmp_path, done=1, total=3).close()
    code, out, _ = deqcert("watch", tmp_path)
    assert code == 1
    assert "stopped since" in out


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, there: bool) -> None:
    folder = tmp_path if there else tmp_path / "nowhere"
    code, out, err = deqcert("watch", folder)
    assert (code, out) == (2, "")
    assert err.splitlines() == [f"error: {folder} is not a run folder (no run.json)"]


def test_bad_options_are_one_line(tmp_path: Path) -> None:
    RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT).close()
    for options in (["--every", "0"], ["--radii", "a"], ["--every", "nan"], ["--every", "inf"]):
        code, _, err = deqcert("watch", tmp_path, *options)
        assert (code, len(err.splitlines())) == (2, 1), options


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo terminal")
def test_a_terminal_is_redrawn(tmp_path: Path) -> None:
    with RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT) as run:
        run.append(certificate(0), label=0)
        ProgressFile(tmp_path, done=1, total=1).close()
    master, slave = pty.openpty()
    with start("watch", tmp_path, stdout=slave) as watch:
        os.close(slave)
        said = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            said += part
    os.close(master)
    assert watch.returncode == 0
    text = said.decode()
    assert "finished: 1 of 1 images" in text
    assert "certified so far" in text
    assert "\x1b[" in text  # drawn, not printed line by line
