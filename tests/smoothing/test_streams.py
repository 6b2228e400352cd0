"""The choice of a noise stream: by device, by name; its certificates; on a GPU without waiting."""

from __future__ import annotations

import pickle
import threading
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deqcert.data import load_data
from deqcert.errors import ConfigurationError, NumericalWarning, UnknownNameError
from deqcert.models import solve_rows
from deqcert.smoothing import NOISE_STREAM, NOISE_STREAMS, Certifier, NoiseSource, Sampler
from deqcert.smoothing.noise import NoiseKey, Stream
from deqcert.smoothing.spent import Spent
from deqcert.smoothing.streams import DEVICE_STREAM, DeviceStream, make_stream
from tests.checks.runs import MeansDEQ

CPU = torch.device("cpu")
METHODS: dict[str, dict[str, Any]] = {
    "standard": {"method": "standard"},
    "srs": {"method": "srs", "audit": 60},
    "srs, linear": {"method": "srs", "audit": 60, "start": "linear", "reference": "picard:12"},
}


def certifier(stream: str | None = DEVICE_STREAM, **settings: Any) -> Certifier:
    few = {"sigma": 0.3, "n0": 40, "n": 290, "chains": 70}
    return Certifier(MeansDEQ(), **{**few, **settings}, noise_stream=stream)


def record(subject: Certifier) -> dict[str, Any]:
    image = load_data("digits")[11].image
    return {**subject.certify(image, seed=5, index=11).to_json(), "seconds": 0}


def test_the_device_decides_unless_a_name_does():
    assert make_stream(None, CPU).name == NOISE_STREAM == "numpy-philox-block16-float32-v1"
    assert make_stream(None, torch.device("cuda", 1)).name == DEVICE_STREAM
    for name in NOISE_STREAMS:
        for device in (CPU, torch.device("cuda")):
            assert make_stream(name, device).name == name
            assert make_stream("host", device).name == NOISE_STREAM
            assert make_stream("device", device).name == DEVICE_STREAM
    with pytest.raises(UnknownNameError, match="did you mean 'torch-philox4x32"):
        make_stream("torch-philox4x32-boxmuller-float32-v2", CPU)
    with pytest.raises(ConfigurationError, match="float64, which device mps lacks"):
        make_stream(DEVICE_STREAM, torch.device("mps"))


@pytest.mark.parametrize("name", METHODS)
def test_records_name_the_stream_and_do_not_depend_on_the_batch(name: str):
    subject = certifier(**METHODS[name])
    found = []
    for rows in (400, 90, 16):
        subject._batch.rows = rows
        found.append(record(subject))
    assert found[0]["noise"] == DEVICE_STREAM
    assert sum(found[0]["counts"]) > 250
    assert all(again == found[0] for again in found)
    other = record(certifier(None, **METHODS[name]))
    assert other["noise"] == NOISE_STREAM
    assert other["counts"] != found[0]["counts"]


def test_a_certifier_that_was_sent_keeps_its_stream():
    subject = certifier(method="standard")
    again = pickle.loads(pickle.dumps(subject))
    assert record(again) == record(subject)
    assert again.configuration == subject.configuration
    assert again.configuration["noise"] == DEVICE_STREAM


def test_no_thread_makes_it():
    seen: set[str] = set()

    def look(stage: str, done: int, total: int) -> None:
        seen.update(t.name for t in threading.enumerate() if t.name.startswith("deqcert-ahead"))

    subject = certifier(method="srs", audit=60, batch_size=16)
    subject.certify(load_data("digits")[11].image, seed=5, progress=look)
    assert not seen
    host = certifier(None, method="srs", audit=60, batch_size=16)
    host.certify(load_data("digits")[11].image, seed=5, progress=look)
    assert seen


@dataclass(frozen=True)
class Narrow(DeviceStream):
    """A device whose memory holds the noise of 40 rows."""

    def normals(self, key: NoiseKey, stage: str, draws: np.ndarray) -> Tensor:
        if len(draws) > 40:
            raise torch.OutOfMemoryError("out of memory")
        return super().normals(key, stage, draws)


def test_memory_that_noise_lacks_makes_batches_smaller():
    subject = certifier(method="standard")
    image = load_data("digits")[11].image

    def labels(stream: Stream) -> np.ndarray:
        noise = NoiseSource(seed=5, index=11, shape=(1, 8, 8), sigma=0.3, stream=stream)
        sampler = Sampler(subject.classifier, image, noise, batch_size=400)
        return sampler.cold("estimation", range(290), Spent()).label

    with pytest.warns(NumericalWarning, match="going on with"):
        found = labels(Narrow(CPU))
    assert np.array_equal(found, labels(DeviceStream(CPU)))


@pytest.fixture
def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return torch.device("cuda")


def test_a_gpu_makes_the_numbers_of_the_cpu(gpu: torch.device):
    key = NoiseKey(seed=5, index=0, shape=(3, 32, 32))
    here = DeviceStream(CPU).normals(key, "estimation", np.arange(400))
    there = DeviceStream(gpu).normals(key, "estimation", np.arange(400))
    assert there.device.type == "cuda"
    np.testing.assert_array_max_ulp(there.cpu().numpy(), here.numpy(), maxulp=1)
    assert (there.cpu() != here).float().mean() < 1e-5
    alone = DeviceStream(gpu).normals(key, "estimation", np.array([3, 77]))
    assert torch.equal(alone, there[[3, 77]])


def test_a_gpu_is_not_waited_for(gpu: torch.device):
    subject = certifier(None, method="standard", reference="picard:6", device=gpu)
    assert subject.configuration["noise"] == DEVICE_STREAM
    sampler = subject.sampler(load_data("digits")[11].image, seed=5, index=11)
    model, spec = subject.classifier.model, subject.classifier.spec
    solve_rows(model, sampler.noisy("estimation", range(400)), spec)  # loads kernels
    scattered = np.array([3, 70, 399])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the mode itself, which PyTorch calls a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        sampler.noisy("estimation", scattered)
        solve_rows(model, sampler.noisy("estimation", range(400, 800)), spec)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_certificates_of_a_gpu(gpu: torch.device):
    there = certifier(None, method="standard", device=gpu)
    here = certifier(DEVICE_STREAM, method="standard")
    found, wanted = record(there), record(here)
    assert found["noise"] == wanted["noise"] == DEVICE_STREAM
    # Near ties may fall otherwise on another device.
    assert np.abs(np.subtract(found["counts"], wanted["counts"])).sum() <= 2
