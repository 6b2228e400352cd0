"""The paper's CIFAR-10 subset: ``--skip 20`` certifies 500 images, 0, 20, ..., 9980."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deqcert.data import SOURCES, Dataset, load_data
from deqcert.data.cifar import RECORD
from deqcert.data.source import ArraySource
from deqcert.models import from_classifier
from deqcert.runners import certify_dataset
from deqcert.smoothing import Certifier


def require_the_paper_subset(data: Dataset, out: Path) -> None:
    """Certify it with a classifier and numbers of draws that take a few seconds for all images."""
    quick = torch.nn.Sequential(
        torch.nn.AvgPool2d(16), torch.nn.Flatten(), torch.nn.Linear(12, data.num_classes)
    )
    model = from_classifier(quick, num_classes=data.num_classes, input_shape=data.input_shape)
    certifier = Certifier(model, sigma=0.5, n0=4, n=16, alpha=0.1, method="standard")
    run = certify_dataset(certifier, data, out=out, skip=20, seed=0)
    records = list(run.records())
    assert [record["index"] for record in records] == list(range(0, 10_000, 20))
    assert len(records) == 500
    assert [record["label"] for record in records] == data.labels[::20].tolist()


def test_made_up_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = np.random.Generator(np.random.PCG64(5)).integers(0, 256, (10_000, RECORD), np.uint8)
    made[:, 0] %= 10
    (tmp_path / "test_batch.bin").write_bytes(made.tobytes())
    source = SOURCES["cifar10"]
    assert isinstance(source, ArraySource)
    unchecked = replace(source, read=replace(source.read, checksums={}))  # pyright: ignore[reportArgumentType]
    monkeypatch.setitem(SOURCES, "cifar10", unchecked)
    require_the_paper_subset(load_data("cifar10", folder=tmp_path), tmp_path / "run")


def test_original_files(cifar_folder: Path, tmp_path: Path) -> None:
    data = load_data("cifar10", folder=cifar_folder, download=False)
    require_the_paper_subset(data, tmp_path / "run")
