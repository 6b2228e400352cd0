"""Running out of memory costs time, never a label."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from deqcert.errors import NumericalWarning
from deqcert.smoothing.hardware import HardwareBatch, is_out_of_memory

ROOT = Path(__file__).parents[2]


def certified(megabytes: int) -> dict[str, dict]:
    command = [sys.executable, "-m", "tests.smoothing.certify_in_little_memory"]
    # One arena: each thread would else reserve 64 MB of the address space that is limited here.
    settings = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    environment = {**os.environ, **settings, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [*command, str(megabytes)],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_too_little_memory_gives_the_same_records():
    plenty, little = certified(0), certified(700)
    for method in ("standard", "srs"):
        assert plenty[method]["rows"] == 400
        assert plenty[method]["warnings"] == []
        assert 16 <= little[method]["rows"] <= 128
        assert little[method]["record"] == plenty[method]["record"]
        # One from measuring the margin, one from certifying.
        first, second = little[method]["warnings"]
        assert "400 rows at once need more memory than there is; going on with 192" in first
        assert "rows at once need more memory" in second


def test_memory_that_cannot_be_had_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def refusing(most: int, done: list[tuple[int, int]]):
    def work(low: int, high: int) -> None:
        if high - low > most:
            torch.empty(1 << 50, dtype=torch.uint8)
        done.append((low, high))

    return work


def test_the_size_falls_through_the_fixed_sizes_and_stays():
    batch, done = HardwareBatch(400), []
    with pytest.warns(NumericalWarning, match="400 rows at once need more memory") as caught:
        batch.each(400, refusing(100, done))
    assert len(caught) == 1
    assert batch.rows == 96
    assert done == [(0, 96), (96, 192), (192, 288), (288, 384), (384, 400)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        batch.each(100, refusing(40, done := []))
    assert batch.rows == 32
    assert done == [(0, 32), (32, 64), (64, 96), (96, 100)]


def test_other_errors_and_the_last_size_pass():
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        HardwareBatch(400).each(400, lambda low, high: torch.zeros(3).view(2))
    with (
        pytest.raises(MemoryError, match="16 rows need more memory"),
        pytest.warns(NumericalWarning),
    ):
        HardwareBatch(40).each(40, refusing(8, []))
