"""TensorBoard logging of a training run, where TensorBoard is installed; the log stays in JSON."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER_NAME = "tensorboard"


def is_installed() -> bool:
    """Return whether TensorBoard can be imported (``pip install deqcert[train]``)."""
    return importlib.util.find_spec("tensorboard") is not None


class ScalarLog:
    """Writes every number of an epoch's record under its dotted name; silent if not installed.

    Args:
        folder: The run's folder; events go into a subfolder.
        epoch: First epoch to come. What an interrupted epoch had logged from there on is dropped.
    """

    def __init__(self, folder: Path, *, epoch: int) -> None:
        self._writer = None
        if is_installed():
            from torch.utils.tensorboard import SummaryWriter

            _wait_for_a_new_second(folder / FOLDER_NAME)
            self._writer = SummaryWriter(str(folder / FOLDER_NAME), purge_step=epoch)

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the numbers of a record and flush."""
        if self._writer is None:
            return
        for name, value in numbers(record):
            self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def _wait_for_a_new_second(folder: Path) -> None:
    """Return once no events file of ``folder`` carries the current second in its name.

    TensorBoard reads the files in the order of their names: the second, the host, the process and a
    counter, as text. Of two files made within one second the later can come first, and reading the
    earlier one after it then takes the later one's events for those of an abandoned run.
    """
    while any(folder.glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
        time.sleep(0.02)


def numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a nested record, under names joined by slashes."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{name}".replace(" ", "_"), float(value)
