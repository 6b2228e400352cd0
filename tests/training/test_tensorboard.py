"""TensorBoard gets every number of the log, once per epoch, after an interruption too."""

from __future__ import annotations

import dataclasses

import pytest

from deqcert.training import TrainConfig, TrainWatch, train
from deqcert.training.tensorboard import FOLDER_NAME, ScalarLog, numbers
from tests.training.small import ScalarModel, two_levels

CONFIG = TrainConfig(
    sigma=0.3,
    epochs=4,
    batch_size=8,
    validate_every=2,
    validation_share=0.2,
    validation_copies=1,
    card_copies=1,
)


def test_nested_numbers_get_joined_names():
    record = {"epoch": 1, "a b": 0.5, "text": "x", "flag": True, "in": {"2": 3}}
    assert dict(numbers(record)) == {"epoch": 1.0, "a_b": 0.5, "in/2": 3.0}


def test_events_hold_the_log(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    class StoppedError(Exception):
        pass

    def stop(record) -> None:
        if record["epoch"] == 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(
            ScalarModel(),
            two_levels(),
            out=tmp_path,
            config=CONFIG,
            watch=dataclasses.replace(TrainWatch(), finished=stop),
        )
    result = train(ScalarModel(), two_levels(), out=tmp_path, config=CONFIG)
    events = reader.EventAccumulator(str(tmp_path / FOLDER_NAME))
    events.Reload()
    for name, places in (("loss", (0, 1, 2, 3)), ("validation/accuracy", (1, 3))):
        found = events.Scalars(name)
        assert [event.step for event in found] == list(places)
        for event in found:
            record = dict(numbers(result.log[event.step]))
            assert event.value == pytest.approx(record[name], rel=1e-6)


def test_files_made_one_after_the_other_are_read_in_that_order(tmp_path):
    # Their names are compared as text: within one second, a tenth file comes before a ninth.
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for epoch in range(3):
        log = ScalarLog(tmp_path, epoch=epoch)
        log.write({"epoch": epoch, "loss": float(epoch)})
        log.close()
    files = sorted((tmp_path / FOLDER_NAME).iterdir())
    seconds = {path.name.split(".")[3] for path in files}
    assert len(seconds) == len(files) == 3
    events = reader.EventAccumulator(str(tmp_path / FOLDER_NAME))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [0, 1, 2]
