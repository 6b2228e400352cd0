"""Real processes that are killed, hang or run out of disk: nothing lost, nothing doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deqcert.checks import verify
from deqcert.data import load_data
from deqcert.errors import ConfigurationError, RunFolderError, WorkerError
from deqcert.results import RunFolder, report
from deqcert.results.progress import read_progress
from deqcert.runners import Watch, Workers, certify_dataset
from tests.runners.certify_slowly import certify
from tests.runners.subjects import (
    WHITE,
    poison,
    poisoned_certifier,
    poisoned_digits,
    records_of,
)

ROOT = Path(__file__).parents[2]
LIMIT = 8
# The program of a worker (`runners/process.py`).
WORKER = "deqcert.runners.process_main"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """The records that all runs here should have."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    certify_dataset(poisoned_certifier(), poisoned_digits(), out=folder, limit=LIMIT, seed=3)
    return records_of(folder)


def lines_of(folder: Path) -> int:
    path = folder / "records.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def alive(pid: int) -> bool:
    """Whether a process is there, and no zombie waiting for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers_of(pid: int) -> list[int]:
    """The workers a process has; other children, a browser's driver say, are none of ours."""
    ps = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True
    )
    return [int(row.split()[0]) for row in ps.stdout.splitlines() if WORKER in row]


def test_a_worker_killed_within_an_image_is_replaced_and_its_work_done_again(
    tmp_path: Path, plain: Mapping[int, Any]
):
    certifier = poison(poisoned_certifier(), at_white=str(tmp_path / "killed-once"))
    with pytest.warns(RuntimeWarning, match=f"lost at image {WHITE}, by SIGKILL") as caught:
        certify_dataset(
            certifier, poisoned_digits(), out=tmp_path / "run", limit=LIMIT, seed=3, workers=2
        )
    assert len(caught) == 1
    assert (tmp_path / "killed-once").exists()
    assert records_of(tmp_path / "run") == plain
    assert lines_of(tmp_path / "run") == LIMIT


def test_an_image_that_kills_every_worker_ends_the_run_in_one_line(
    tmp_path: Path, plain: Mapping[int, Any]
):
    certifier = poison(poisoned_certifier(), at_white="kill")
    workers = Workers(count=1, threads=1, time_limit=600)
    with (
        pytest.warns(RuntimeWarning, match="it is done again"),
        pytest.raises(WorkerError, match=f"3 workers were lost .* at image {WHITE}.*SIGKILL") as e,
    ):
        certify_dataset(
            certifier, poisoned_digits(), out=tmp_path, limit=LIMIT, seed=3, workers=workers
        )
    assert "\n" not in str(e.value)
    assert RunFolder.open(tmp_path).done == set(range(WHITE))
    certify_dataset(poisoned_certifier(), poisoned_digits(), out=tmp_path, limit=LIMIT, seed=3)
    assert records_of(tmp_path) == plain


@pytest.mark.parametrize(
    ("method", "deed", "block"), [("standard", "crawl", None), ("srs", "hang", 96)]
)
def test_an_image_that_takes_too_long_is_an_abstention_with_its_reason(
    tmp_path: Path, method: str, deed: str, block: int | None
):
    certifier = poison(poisoned_certifier(method=method, batch_size=16), at_white=deed)
    workers = Workers(count=1, threads=1, time_limit=6.0, block=block)
    data = poisoned_digits()
    run = certify_dataset(certifier, data, out=tmp_path, skip=2, limit=4, seed=3, workers=workers)
    found = records_of(tmp_path)
    assert set(found) == {0, 2, 4, 6}
    hung = found[WHITE]
    assert (hung["prediction"], hung["radius"], hung["p_lower"]) == (None, 0.0, 0.0)
    assert hung["status"] == "abstained"
    reason = "not done within the time limit of 6 s"
    assert hung["plan"] == {"method": "abstain", "reason": reason, "time_limit": 6.0}
    others = certify_dataset(
        poisoned_certifier(method=method), data, out=tmp_path / "p", skip=2, limit=4, seed=3
    )
    wanted = records_of(others.path)
    assert {i: r for i, r in found.items() if i != WHITE} == {
        i: r for i, r in wanted.items() if i != WHITE
    }
    assert report(run, radii=[0.0]).summaries[0].abstentions >= 1
    checked = verify(tmp_path, model=poisoned_certifier().classifier.model, data=data, replays=4)
    assert checked.clean, checked
    assert any(f"image {WHITE} was given up" in note for note in checked.notes)


def test_the_driver_killed_and_resumed(tmp_path: Path):
    """SIGKILL of the caller in the middle of images: its workers end, and nothing is lost."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "tests.runners.certify_slowly", str(killed), "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    while lines_of(killed) < 2:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    workers = workers_of(process.pid)
    progress = read_progress(killed)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert progress is not None
    assert (progress.pid, progress.finished) == (process.pid, False)
    assert len(workers) == 2
    deadline = time.monotonic() + 60
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "workers outlive their caller"
        time.sleep(0.05)
    with open(killed / "records.jsonl", "ab") as file:
        file.write(b'{"prediction": 3, "rad')  # what a kill within a write would leave
    before = records_of(killed)
    assert 2 <= len(before) < 12
    certify(str(killed))
    certify(str(whole))
    assert records_of(killed) == records_of(whole)
    assert lines_of(killed) == 12
    assert before.items() <= records_of(killed).items()


def test_a_full_disk_ends_the_workers_and_keeps_what_was_written(
    tmp_path: Path, plain: Mapping[int, Any]
):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    begun: list[int] = []

    def fill(record: Mapping[str, Any]) -> None:
        begun.extend(workers_of(os.getpid()))
        size = (tmp_path / "records.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))

    try:
        with pytest.raises(RunFolderError, match=r"cannot write .*records\.jsonl"):
            certify_dataset(
                poisoned_certifier(),
                poisoned_digits(),
                out=tmp_path,
                limit=LIMIT,
                seed=3,
                workers=2,
                watch=Watch(finished=fill),
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert len(begun) == 2
    assert not any(map(alive, begun))
    assert len(RunFolder.open(tmp_path).done) == 1
    certify_dataset(poisoned_certifier(), poisoned_digits(), out=tmp_path, limit=LIMIT, seed=3)
    assert records_of(tmp_path) == plain


def test_a_second_writer_is_refused_before_any_work(tmp_path: Path):
    data = poisoned_digits()
    certify_dataset(poisoned_certifier(), data, out=tmp_path, limit=1, seed=3)
    content = RunFolder.open(tmp_path)
    with (
        RunFolder.create_or_resume(tmp_path, content.configuration, content.environments[0]),
        pytest.raises(RunFolderError, match="is being written by another process"),
    ):
        certify_dataset(poisoned_certifier(), data, out=tmp_path, limit=3, seed=3, workers=2)
    assert workers_of(os.getpid()) == []
    assert RunFolder.open(tmp_path).done == {0}


def test_a_model_that_workers_cannot_load_is_one_line(tmp_path: Path):
    certifier = poisoned_certifier()
    certifier.classifier.model.lock = threading.Lock()
    with pytest.raises(WorkerError, match=r"cannot be sent to workers: .*lock") as caught:
        certify_dataset(certifier, load_data("digits"), out=tmp_path, limit=1, seed=0, workers=2)
    assert "\n" not in str(caught.value)


def test_a_script_needs_no_main_guard_and_may_hold_its_own_model(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\n"
        "import deqcert as dc\n"
        "from deqcert.runners import Workers\n"
        "from tests.runners.subjects import TemplateDEQ\n"
        "class Mine(TemplateDEQ):\n"
        "    def classify(self, state):\n"
        "        return -super().classify(state)\n"
        "subject = dc.Certifier(Mine(), sigma=0.5, n0=20, n=100, method='standard')\n"
        "workers = Workers(count=1, threads=1, time_limit=600)\n"
        "print('once')\n"
        "data = dc.load_data('digits')\n"
        "run = dc.certify_dataset(subject, data, out='run', limit=2, seed=0, workers=workers)\n"
        "again = [subject.certify(data[i].image, seed=0, index=i).counts for i in range(2)]\n"
        "assert [tuple(r['counts']) for r in run.records()] == again\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "once\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "number of workers must be an integer >= 1"),
        ({"threads": 1.5}, "threads per worker must be an integer >= 1"),
        ({"block": 15}, "block must be an integer >= 16"),
        ({"gpus": 2}, "a fraction of one"),
        ({"gpus": float("nan")}, "a fraction of one"),
        ({"time_limit": 0}, "must be a finite number of seconds > 0"),
        ({"time_limit": float("inf")}, "must be a finite number of seconds > 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        Workers(**settings)


def test_settings_that_do_not_fit(tmp_path: Path):
    data = poisoned_digits()
    for workers, message in (
        (Workers(count=2, gpus=0.5), "need a certifier on a GPU"),
        (Workers(gpus=1), "need a certifier on a GPU"),
        (Workers(address="auto"), "an address is for the runner ray"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            certify_dataset(
                poisoned_certifier(), data, out=tmp_path / "run", seed=3, workers=workers
            )
    assert not (tmp_path / "run").exists()
