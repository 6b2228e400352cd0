"""Runs a study: rows take turns, image by image, each into its own resumable run folder.

A slow minute of the machine then meets all rows alike, and a study stopped half-way has certified
the same images by every row. Deterministic certificates, which cost next to nothing and are made in
batches, come first and in one go. With several workers rows come one after another, their images
side by side.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deqcert.data import Dataset
from deqcert.errors import RunFolderError
from deqcert.models import weights_digest
from deqcert.results import RunFolder, is_run_folder
from deqcert.results.configuration import as_json, configuration_differences
from deqcert.runners import Watch, Workers, certify_dataset
from deqcert.smoothing import Certifier
from experiments.clean import clean_accuracy
from experiments.settings import CERTIFIERS, Row, Study
from experiments.subjects import Shelf

RUNS, CLEAN = "runs", "clean"


class OutOfTimeError(Exception):
    """The time is up; everything done is on disk."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and on what a study runs.

    Attributes:
        out: Folder of the study.
        shared: Folder of the runs that studies share.
        data: The split.
        shelf: Where models are looked for.
        limit: Images of each row to certify this time at most; None for all of them.
        device: Torch device of smoothing rows; None for the CPU.
        deadline: `time.monotonic` after which no further image is started; None for no limit.
        workers: Processes that certify the images of a smoothing row, and the threads of each; None
            for this very process.
        console: Where progress goes.
    """

    out: Path
    shared: Path
    data: Dataset
    shelf: Shelf
    limit: int | None = None
    device: str | None = None
    deadline: float | None = None
    workers: Workers | None = None
    console: Console

    def folder(self, row: Row) -> Path:
        """Return the row's run folder."""
        if row.shared is None or row.name in self.shelf.named:
            return self.out / RUNS / row.name
        return self.shared / row.shared

    def clean_file(self, row: Row) -> Path:
        """Return the file of the row's accuracy without noise."""
        return self.out / CLEAN / f"{row.name}.json"

    def indices(self, row: Row) -> range:
        """Return the images that the row is about."""
        return range(0, len(self.data), row.skip)[: row.limit]

    def asked(self, row: Row) -> range:
        """Return those of them that are asked for this time."""
        return self.indices(row)[: self.limit]

    def check_time(self) -> None:
        """Raise `OutOfTimeError` once the deadline has passed."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTimeError


@dataclass(frozen=True, kw_only=True)
class Job:
    """A row that is ready to be certified."""

    row: Row
    certifier: Any
    watch: Watch
    indices: tuple[int, ...]
    done: frozenset[int]


def run_study(study: Study, rows: Sequence[Row], place: Place) -> bool:
    """Certify what is missing of `rows`; return whether all with weights are finished.

    Raises:
        RunFolderError: A row's folder holds a run of other settings.
        DeqcertError: As `certify_dataset`.
    """
    unfinished = [row for row in rows if _is_unfinished(row, study, place)]
    try:
        with _progress(unfinished, place) as watches:
            jobs = [_job(row, place, watches[row.name]) for row in unfinished]
            _take_turns([job for job in jobs if job is not None], study, place)
    except OutOfTimeError:
        return False
    return True


def _take_turns(jobs: Sequence[Job], study: Study, place: Place) -> None:
    in_turn = [job for job in jobs if _is_smoothing(job) and place.workers is None]
    for job in jobs:
        if job not in in_turn:
            _certify(job, len(job.indices), study, place)
    for position in range(max((len(job.indices) for job in in_turn), default=0)):
        for job in in_turn:
            if position < len(job.indices) and job.indices[position] not in job.done:
                _certify(job, position + 1, study, place)


def _is_smoothing(job: Job) -> bool:
    return isinstance(job.certifier, Certifier)


def _job(row: Row, place: Place, watch: Watch) -> Job | None:
    """Return the row ready to run, its clean accuracy measured; None without weights."""
    place.check_time()
    model = place.shelf.load(row, place.data)
    if model is None:
        place.console.print(f"{row.name}: not run, no weights of {row.model}", highlight=False)
        return None
    if row.clean:
        clean_accuracy(row, model, place.data, place.clean_file(row))
    kind = CERTIFIERS[row.method]
    extra = {"method": row.method, "device": place.device} if kind is Certifier else {}
    return Job(
        row=row,
        certifier=kind(model, **extra, **row.options),
        watch=watch,
        indices=tuple(place.asked(row)),
        done=frozenset(RunFolder.open(folder).done)
        if is_run_folder(folder := place.folder(row))
        else frozenset(),
    )


def _certify(job: Job, count: int, study: Study, place: Place) -> None:
    """Certify the first `count` images of a row."""
    place.check_time()
    certify_dataset(
        job.certifier,
        place.data,
        out=place.folder(job.row),
        skip=job.row.skip,
        limit=count,
        seed=study.seed if _is_smoothing(job) else None,  # others draw nothing
        workers=place.workers if _is_smoothing(job) else None,
        watch=job.watch,
    )


def _is_unfinished(row: Row, study: Study, place: Place) -> bool:
    """Whether anything of the row is still to be done.

    Raises:
        RunFolderError: Its folder holds a run of other settings.
    """
    if not is_run_folder(place.folder(row)):
        return True
    run = RunFolder.open(place.folder(row))
    _require_settings(run, row, study, place)
    all_certified = run.done.issuperset(place.asked(row))
    return not all_certified or (row.clean and not place.clean_file(row).is_file())


def _require_settings(run: RunFolder, row: Row, study: Study, place: Place) -> None:
    """Refuse a finished run of other settings or weights: its numbers would stand in a wrong row.

    Of unfinished ones `certify_dataset` compares the whole configuration.
    """
    settings = {**row.options, "method": row.method, "skip": row.skip, "seed": study.seed}
    model = place.shelf.load(row, place.data)
    if model is not None:
        settings["weights_digest"] = weights_digest(model)
    wanted = as_json("settings", settings)
    stored = {key: run.configuration[key] for key in wanted if key in run.configuration}
    shared = {key: wanted[key] for key in stored}
    for key, old, new in configuration_differences(stored, shared):
        raise RunFolderError(
            f"{run.path} holds a run of other settings ({key} {old!r} there, {new!r} now); choose "
            "another --out"
        )


@contextmanager
def _progress(rows: Sequence[Row], place: Place) -> Iterator[dict[str, Watch]]:
    """Show a bar per row to people, a line per image to files and pipes."""
    console = place.console
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bars:
        yield {row.name: _watch(row, bars, place) for row in rows}


def _watch(row: Row, bars: Progress, place: Place) -> Watch:
    total = len(place.asked(row))
    task = bars.add_task(row.name, total=total)
    seen = {"done": 0}

    def started(done: int, of: int) -> None:
        del of  # of this turn; the bar is about all turns
        seen["done"] = max(seen["done"], done)
        bars.update(task, completed=seen["done"])

    def finished(record: Mapping[str, Any]) -> None:
        seen["done"] += 1
        bars.update(task, completed=seen["done"])
        if not place.console.is_terminal:
            place.console.print(
                f"{row.name}: {seen['done']}/{total} image {record['index']}, "
                f"{record['cell_evaluations']:,} cell evaluations, {record['seconds']:.1f} s",
                highlight=False,
                soft_wrap=True,
            )
        place.check_time()

    return Watch(started=started, finished=finished)
