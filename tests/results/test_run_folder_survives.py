"""Kills, full disks and places that cannot be written: nothing lost, nothing doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deqcert.errors import RunFolderError
from deqcert.results import RunFolder
from deqcert.results.files import write_atomically
from tests.results.made import CONFIGURATION, ENVIRONMENT, certificate

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.results.writer"]
SEARCH = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")


def run_writer(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, str(folder), *map(str, arguments)]
    return subprocess.run(command, env=SEARCH, cwd=ROOT, capture_output=True, text=True)


@posix
def test_kill_9_loses_and_doubles_nothing(tmp_path: Path) -> None:
    command = [*COMMAND, str(tmp_path / "killed"), "2000"]
    with subprocess.Popen(
        command, env=SEARCH, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(25)]
        process.send_signal(signal.SIGKILL)
        process.wait()
        told += [int(line) for line in process.stdout]
    left = [record["index"] for record in RunFolder.open(tmp_path / "killed").records()]
    assert left[: len(told)] == told, "every record reported as written is on disk"
    assert len(left) - len(told) <= 1, "at most one more, killed before it could say so"
    count = len(left) + 10
    assert run_writer(tmp_path / "killed", count).returncode == 0
    assert run_writer(tmp_path / "whole", count).returncode == 0
    for name in ("records.jsonl", "cohen.tsv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@posix
def test_full_disk_is_one_line_and_keeps_what_was_written(tmp_path: Path) -> None:
    result = run_writer(tmp_path / "full", 50, 5000)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: cannot write {tmp_path / 'full' / 'records.jsonl'}: ")
    assert result.stderr.count("\n") == 1
    told = [int(line) for line in result.stdout.split()]
    assert len(told) >= 3
    content = (tmp_path / "full" / "records.jsonl").read_bytes()
    assert content.endswith(b"}\n"), "the half-written line was taken back"
    assert [r["index"] for r in RunFolder.open(tmp_path / "full").records()] == told
    assert run_writer(tmp_path / "full", 50).returncode == 0
    assert RunFolder.open(tmp_path / "full").done == set(range(50))


@posix
def test_append_works_again_once_there_is_space(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT) as run:
            run.append(certificate(0), label=0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1200, hard))
            with pytest.raises(RunFolderError, match="cannot write"):
                run.append(certificate(1), label=0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            run.append(certificate(1), label=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert [r["index"] for r in RunFolder.open(tmp_path).records()] == [0, 1]


@posix
def test_full_disk_at_the_start_leaves_no_half_file(tmp_path: Path) -> None:
    result = run_writer(tmp_path / "full", 5, 100)
    assert result.returncode == 2
    assert f"cannot write {tmp_path / 'full' / 'run.json'}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert {p.name for p in (tmp_path / "full").iterdir()} <= {".lock"}
    assert run_writer(tmp_path / "full", 5).returncode == 0


def test_second_process_is_refused(tmp_path: Path) -> None:
    with RunFolder.create_or_resume(tmp_path, CONFIGURATION, ENVIRONMENT) as run:
        result = run_writer(tmp_path, 5)
        assert result.returncode == 2
        assert "is being written by another process" in result.stderr
        run.append(certificate(0), label=0)
    assert RunFolder.open(tmp_path).done == {0}


def test_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("notes")
    for path in (tmp_path / "taken", tmp_path / "taken" / "run"):
        with pytest.raises(RunFolderError, match="a file is in its way"):
            RunFolder.create_or_resume(path, CONFIGURATION, ENVIRONMENT)
        with pytest.raises(RunFolderError, match="is not a run folder"):
            RunFolder.open(path)
    assert (tmp_path / "taken").read_text() == "notes"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_folder_without_write_permission(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    for path in (tmp_path / "locked", tmp_path / "locked" / "run"):
        with pytest.raises(RunFolderError, match="Permission denied"):
            RunFolder.create_or_resume(path, CONFIGURATION, ENVIRONMENT)


def test_file_system_that_is_read_only() -> None:
    # /proc takes no new folders, not even from root.
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc")
    with pytest.raises(RunFolderError, match=r"cannot write /proc/deqcert"):
        RunFolder.create_or_resume("/proc/deqcert", CONFIGURATION, ENVIRONMENT)


def test_a_disk_that_takes_back_nothing_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a read-only one even a temporary file that is not there cannot be removed."""

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RunFolderError, match="cannot write"):
        write_atomically(tmp_path / "none" / "table.md", "x")
