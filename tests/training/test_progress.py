"""What a log file sees of a training run."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from deqcert.training import TrainConfig, console_progress, train
from deqcert.training.progress import _rate
from tests.training.small import ScalarModel, two_levels


def lines_of(out: Path, **settings: float) -> list[str]:
    stream = StringIO()
    console = Console(file=stream, width=200)
    config = TrainConfig(
        sigma=0.5,
        epochs=2,
        batch_size=10,
        pretrain_epochs=0,
        objective="equilibrium",
        augment=None,
        validate_every=2,
        card_copies=1,
    )
    with console_progress("train", console, **settings) as watch:
        train(ScalarModel(), two_levels(), out=out, config=config, watch=watch)
    return stream.getvalue().splitlines()


def test_plain_lines_where_no_terminal_is(tmp_path):
    lines = lines_of(tmp_path / "run")
    assert len(lines) == 2
    assert lines[0].startswith("train: epoch 1/2, loss ")
    assert "images/s" in lines[0]
    assert " left" in lines[0]
    assert "held out (" in lines[1]
    assert " images) " in lines[1]
    assert "% under noise" in lines[1]


@pytest.mark.parametrize(("rate", "shown"), [(0.4372, "0.44"), (9.94, "9.9"), (235.4, "235")])
def test_slow_models_have_a_rate_too(rate, shown):
    assert _rate({"images_per_second": rate}) == f"{shown} images/s, "


def test_long_epochs_are_not_silent(tmp_path):
    lines = lines_of(tmp_path / "run", silence=-1.0)
    steps = [line for line in lines if line.startswith("train: step ")]
    assert [line.partition(", loss ")[0] for line in steps] == [
        f"train: step {done} of 6" for done in range(1, 7)
    ]
    first = next(line for line in lines if line not in steps)
    assert first.startswith("train: epoch 1/2, loss ")
