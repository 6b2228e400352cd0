"""What every runner owes: the records of the plain one, whatever happens on the way."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from deqcert.data import load_data
from deqcert.data.arrays import ArrayDataset
from deqcert.errors import NumericalWarning
from deqcert.results import RunFolder
from deqcert.results.progress import read_progress
from deqcert.runners import Watch, Workers, certify_dataset
from deqcert.runners.base import AnyCertifier
from deqcert.smoothing import Certifier
from deqcert.smoothing.streams import DEVICE_STREAM
from tests.checks.runs import deterministic_certifier, monotone_model
from tests.runners.subjects import (
    BLACK,
    WHITE,
    poison,
    poisoned_certifier,
    poisoned_digits,
    records_of,
)

LIMIT = 8
RUNNERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "processes": {"workers": 2},
    "blocks": {"workers": Workers(count=2, threads=1, block=48)},
    "ray": {"runner": "ray", "workers": 2},
}


@pytest.fixture(scope="module")
def _cluster() -> Iterator[None]:
    """One cluster for all runs here: runs use the one a process is connected to."""
    import ray

    # Its own, not one that another test has just started beside this one.
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(params=RUNNERS)
def hands(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The arguments of `certify_dataset` that choose a runner."""
    if request.param == "ray":
        if importlib.util.find_spec("ray") is None:
            pytest.skip("needs Ray: pip install 'deqcert[ray]'")
        request.getfixturevalue("_cluster")
    return RUNNERS[request.param]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Noted(ArrayDataset):
    """Digits that note which images were looked at."""

    begun: set[int] = field(default_factory=set)

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        self.begun.update(map(int, rows))
        return super().images(rows)


def noted(data: ArrayDataset) -> Noted:
    names = [f.name for f in dataclasses.fields(ArrayDataset)]
    return Noted(**{name: getattr(data, name) for name in names})


def expected(make: Callable[[], AnyCertifier], folder: Path, **options: Any) -> dict[int, Any]:
    certify_dataset(make(), poisoned_digits(), out=folder, limit=LIMIT, **options)
    return records_of(folder)


def test_serialized_labels_in_little_memory_with_few_images_begun(
    hands: dict[str, Any], tmp_path: Path
):
    wanted = expected(poisoned_certifier, tmp_path / "plain", seed=3)
    data, counts = noted(poisoned_digits()), {"most": 0, "done": 0}

    def finished(record: Any) -> None:
        counts["most"] = max(counts["most"], len(data.begun) - counts["done"])
        counts["done"] += 1

    certifier = poison(poisoned_certifier(), most_rows=20)
    run = tmp_path / "run"
    with pytest.warns(NumericalWarning, match="need more memory than there is; going on with 16"):
        certify_dataset(
            certifier, data, out=run, limit=LIMIT, seed=3, watch=Watch(finished=finished), **hands
        )
    assert records_of(run) == wanted
    (environment,) = json.loads((run / "run.json").read_text())["environments"]
    assert counts["most"] <= environment["in_flight"]
    assert {r["plan"]["method"] for r in wanted.values()} >= {"srs", "abstain"}
    assert wanted[BLACK]["counts0"] == [0] * 10  # NaN at every draw
    progress = read_progress(run)
    assert progress is not None
    assert (progress.done, progress.total, progress.finished) == (LIMIT, LIMIT, True)
    # Threads that compute rows stay for the next batch, of whatever test came first.
    ours = {t.name.rpartition("_")[0] for t in threading.enumerate()} - {"deqcert-rows"}
    assert [name for name in ours if name.startswith("deqcert-")] == []


def test_independent_labels_until_an_image_fails_then_another_runner_goes_on(
    hands: dict[str, Any], tmp_path: Path
):
    make = lambda: poisoned_certifier(method="standard")  # noqa: E731
    wanted = expected(make, tmp_path / "plain", seed=3)
    run, data = tmp_path / "run", poisoned_digits()
    with pytest.raises(ValueError, match="no model can take this image"):
        certify_dataset(
            poison(make(), at_white="raise"), data, out=run, limit=LIMIT, seed=3, **hands
        )
    done = RunFolder.open(run).done
    assert WHITE not in done
    assert done
    certify_dataset(make(), data, out=run, limit=LIMIT, seed=3)
    assert records_of(run) == wanted
    assert wanted[BLACK]["prediction"] is None
    assert sum(r["prediction"] is not None for r in wanted.values()) >= 3


def test_proved_labels(hands: dict[str, Any], tmp_path: Path):
    def make() -> Certifier:
        settings = {"n0": 20, "n": 120, "chains": 48, "method": "proved", "start": "clean"}
        return Certifier(monotone_model(), sigma=0.25, reference="picard:60", **settings)

    digits = load_data("digits")
    certify_dataset(make(), digits, out=tmp_path / "plain", limit=4, seed=3)
    certify_dataset(make(), digits, out=tmp_path / "run", limit=4, seed=3, **hands)
    assert records_of(tmp_path / "run") == records_of(tmp_path / "plain")
    assert all(sum(r["counts"]) > 60 for r in records_of(tmp_path / "run").values())


def test_noise_that_devices_make(hands: dict[str, Any], tmp_path: Path):
    make = lambda: poisoned_certifier(noise_stream=DEVICE_STREAM)  # noqa: E731
    digits, plain, run = load_data("digits"), tmp_path / "plain", tmp_path / "run"
    certify_dataset(make(), digits, out=plain, limit=2, seed=3)
    certify_dataset(make(), digits, out=run, limit=2, seed=3, **hands)
    assert records_of(run) == records_of(plain)
    assert {record["noise"] for record in records_of(run).values()} == {DEVICE_STREAM}


def test_certificates_without_noise(hands: dict[str, Any], tmp_path: Path):
    if hands is RUNNERS["blocks"]:
        pytest.skip("images without draws are not cut: the same as processes")
    make = lambda: deterministic_certifier("lipschitz", batch_size=4)  # noqa: E731
    wanted = expected(make, tmp_path / "plain")
    data = noted(poisoned_digits())
    certify_dataset(make(), data, out=tmp_path / "run", limit=LIMIT, **hands)
    assert records_of(tmp_path / "run") == wanted
    assert data.begun == set(range(LIMIT))


def test_runs_do_not_change_the_threads_of_the_caller(tmp_path: Path):
    before = torch.get_num_threads()
    certifier, data = poisoned_certifier(method="standard"), load_data("digits")
    seen = []
    watch = Watch(finished=lambda record: seen.append(torch.get_num_threads()))
    workers = Workers(threads=before + 1)
    certify_dataset(certifier, data, out=tmp_path, limit=1, workers=workers, watch=watch)
    assert seen == [before + 1]
    assert torch.get_num_threads() == before
