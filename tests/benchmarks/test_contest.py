"""Threads are held to their processors, and so are processes started from them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import contest
import pytest
import torch


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system cannot hold threads")
def test_threads_and_processes_stay_on_their_processors():
    allowed, threads = os.sched_getaffinity(0), torch.get_num_threads()
    go, seen = threading.Event(), []

    def early() -> None:
        go.wait()
        seen.append(len(os.sched_getaffinity(0)))

    thread = threading.Thread(target=early)
    thread.start()
    try:
        contest.use_threads(1)
        ask = [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"]
        assert int(subprocess.check_output(ask)) == 1
        go.set()
        thread.join()
        assert seen == [1]
        assert torch.get_num_threads() == 1
        contest.use_threads(len(allowed))
        assert os.sched_getaffinity(0) == allowed
    finally:
        go.set()
        torch.set_num_threads(threads)
        os.sched_setaffinity(0, allowed)


def test_random_weights_have_something_to_solve():
    model = contest.load("mdeq-digits:random")
    images = torch.rand(32, *model.input_shape, generator=torch.Generator().manual_seed(0))
    ours = contest.certifier(model, contest.Work(steps=8))
    _, solution = ours.classifier.labelled(images)
    assert float(solution.residual.min()) > 1e-3
