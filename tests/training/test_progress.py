"""What a log file sees of a training run."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from deqcert.training import TrainConfig, console_progress, train
from tests.training.small import ScalarModel, two_levels


def test_plain_lines_where_no_terminal_is(tmp_path):
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
    with console_progress("train", console) as watch:
        train(ScalarModel(), two_levels(), out=tmp_path / "run", config=config, watch=watch)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("train: epoch 1/2, loss ")
    assert "images/s" in lines[0]
    assert " left" in lines[0]
    assert "% under noise" in lines[1]
