"""The record of an image is the same for any batch size and any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import deqcert as dc
from deqcert.smoothing import Certifier


@pytest.fixture
def _threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads_restored")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("method", "reference", "serial"),
    [
        ("standard", "picard:3", None),
        ("standard", "anderson:8", None),
        ("standard", "picard:6,exits=1@1.5+2@0.4", None),
        ("srs", "anderson:6:1e-2", "anderson:3:1e-2"),
        ("srs", "picard:3", "picard:1"),
    ],
)
def test_batch_size_and_threads_change_no_record(
    dtype: str, method: str, reference: str, serial: str | None
):
    settings = {"n0": 40, "n": 200, "audit": 50, "chains": 100, "dtype": dtype, "method": method}
    subject = Certifier(
        dc.load_model("mdeq-digits"), sigma=0.5, reference=reference, serial=serial, **settings
    )
    image = dc.load_data("digits")[3].image
    records = []
    for threads, rows in ((1, 400), (2, 90), (1, 16)):
        torch.set_num_threads(threads)
        subject._batch.rows = rows
        records.append({**subject.certify(image, seed=0).to_json(), "seconds": 0})
    assert sum(records[0]["counts"]) > 150
    assert all(record == records[0] for record in records)
