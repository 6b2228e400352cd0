"""A real local Ray: a killed worker, a lost node, a joined one, and trouble at the start."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deqcert.errors import ConfigurationError, WorkerError
from deqcert.runners import Watch, Workers, certify_dataset
from tests.runners.subjects import (
    WHITE,
    poison,
    poisoned_certifier,
    poisoned_digits,
    records_of,
)

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'deqcert[ray]'")

LIMIT = 12
QUICK = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000}
"""A lost node is noticed after some seconds; by Ray's own settings after half a minute or more."""


class Seen(Exception):  # noqa: N818
    """The test has seen what it was waiting for."""


class Nodes:
    """Loses a node after two records, and adds one; adds another after two more, and waits for it.

    Args:
        cluster: A `ray.cluster_utils.Cluster` with a head that has no room.
    """

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.first = cluster.add_node(num_cpus=1)
        self.records = 0
        self.workers: set[str] = set()
        self.deadline = time.monotonic() + 400

    def finished(self, record: Mapping[str, Any]) -> None:
        del record
        self.records += 1
        if self.records == 2:
            self.cluster.remove_node(self.first, allow_graceful=False)
            self.cluster.add_node(num_cpus=1)
        if self.records == 6:
            self.cluster.add_node(num_cpus=1)

    def working(self, worker: str, index: int | None, stage: str, done: int, total: int) -> None:
        assert time.monotonic() < self.deadline, "the joined node was never used"
        if index is not None and self.records >= 6:
            self.workers.add(worker)
            if len(self.workers) == 2:
                raise Seen


def test_nodes_come_and_go_and_a_worker_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ray.cluster_utils import Cluster

    import deqcert.runners.ray as runner

    monkeypatch.setattr(runner, "_GROWTH_EVERY", 0.2)
    plain, run, data = tmp_path / "plain", tmp_path / "run", poisoned_digits()
    certify_dataset(poisoned_certifier(), data, out=plain, limit=LIMIT, seed=3)
    certifier = poison(poisoned_certifier(), at_white=str(tmp_path / "killed-once"), pause=0.02)
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    options = {"seed": 3, "runner": "ray", "workers": Workers(address=cluster.address)}
    try:
        with pytest.raises(RuntimeWarning, match="no room yet for a worker of 1 CPUs"):
            certify_dataset(certifier, data, out=run, **options)  # warnings are errors here
        nodes = Nodes(cluster)
        with (
            pytest.warns(RuntimeWarning, match="a worker was lost at image") as caught,
            pytest.raises(Seen),
        ):
            certify_dataset(
                certifier,
                data,
                out=run,
                **options,
                watch=Watch(finished=nodes.finished, working=nodes.working),
            )
    finally:
        cluster.shutdown()
    assert not ray.is_initialized()
    assert any(f"image {WHITE}," in str(warning.message) for warning in caught)
    assert (tmp_path / "killed-once").exists()
    found = records_of(run)
    assert len(found) >= 6
    certify_dataset(poisoned_certifier(), data, out=run, limit=LIMIT, seed=3)
    found, wanted = records_of(run), records_of(plain)
    assert {index: found[index] for index in wanted} == wanted
    assert (run / "records.jsonl").read_bytes().count(b"\n") == len(found)


def test_a_cluster_of_its_own_is_stopped_after_the_run_and_hangs_are_ended(tmp_path: Path):
    certifier = poison(poisoned_certifier(), at_white="hang")
    # Enough for any other image, however busy the machine.
    workers = Workers(count=1, time_limit=20.0, block=96)
    settings = {"skip": 2, "limit": 4, "seed": 3}
    certify_dataset(
        certifier,
        poisoned_digits(),
        out=tmp_path / "run",
        runner="ray",
        workers=workers,
        **settings,
    )
    assert not ray.is_initialized()
    certify_dataset(poisoned_certifier(), poisoned_digits(), out=tmp_path / "plain", **settings)
    found, wanted = records_of(tmp_path / "run"), records_of(tmp_path / "plain")
    assert found.pop(WHITE)["plan"]["time_limit"] == 20.0
    assert found.items() <= wanted.items()
    assert set(wanted) - set(found) == {WHITE}


def test_no_cluster_at_the_address_is_one_line(tmp_path: Path):
    certifier, workers = poisoned_certifier(), Workers(address="127.0.0.1:9")
    with pytest.raises(WorkerError, match=r"no Ray cluster at 127\.0\.0\.1:9: .*refused") as caught:
        certify_dataset(
            certifier, poisoned_digits(), out=tmp_path, seed=3, runner="ray", workers=workers
        )
    assert "\n" not in str(caught.value)


def test_without_ray_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "deqcert.runners.ray", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'deqcert\[ray\]'"):
        certify_dataset(
            poisoned_certifier(), poisoned_digits(), out=tmp_path / "run", seed=3, runner="ray"
        )
    assert not (tmp_path / "run").exists()
