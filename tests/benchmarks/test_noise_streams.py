"""The benchmark of noise streams counts what a batch asks of a device."""

from __future__ import annotations

import json

import noise_streams
import torch


def test_operations_and_bytes_are_counted():
    one, other = torch.ones(8, 16), torch.ones(8, 16)
    with noise_streams.Traffic() as seen:
        one.mul_(2.0)
        torch.add(one, other, out=other)
        one[0] + other[:, :1].expand(8, 16)
        torch.empty(9).view(3, 3)
    assert seen.operations == 3
    assert seen.bytes == 4 * (2 * 128 + 3 * 128 + (16 + 8 * 2 + 128))


def test_results_at_a_tiny_size(tmp_path, call):
    out = tmp_path / "noise.json"
    call(noise_streams.main, f"--draws digits --repeats 1 --out {out}")
    (row,) = json.loads(out.read_text())["draws"].values()
    assert all(cost > 0 for cost in row["microseconds_per_draw"].values())
    assert 50 < row["operations_per_batch"] < 80
    assert 300 < row["bytes_per_number"] < 600
