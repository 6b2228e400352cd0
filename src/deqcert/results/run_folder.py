"""The run folder: configuration, one record per certified image, resumable after any kill.

``run.json`` says what was run, ``records.jsonl`` holds one line per image, ``cohen.tsv`` the same
in the field's log format. A record is on disk before `RunFolder.append` returns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from deqcert.certificate import AnyCertificate
from deqcert.errors import RunFolderError
from deqcert.results.cohen import HEADER, cohen_row
from deqcert.results.configuration import as_json, require_same
from deqcert.results.files import LOCK, LineFile, cannot_write, lock_folder, write_atomically
from deqcert.results.progress import PROGRESS
from deqcert.results.records import Record, encode, make_record, read_records, scan_records

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
RUN, RECORDS, COHEN = "run.json", "records.jsonl", "cohen.tsv"
# What a run killed before its run.json was in place may leave behind.
LEFTOVERS = {LOCK, RUN + ".tmp", PROGRESS, PROGRESS + ".tmp"}


class RunFolder:
    """A run on disk. Make one by `create_or_resume` (to write) or `open` (to read).

    Attributes:
        path: The folder.
        configuration: What decides the results; a resumed run must have the same.
        environments: Facts that may differ from one start of a run to the next (device, versions,
            batch size, runner), each distinct set once, in order of appearance.
        done: Indices of the images that have a record.
    """

    path: Path
    configuration: dict[str, Any]
    environments: list[dict[str, Any]]
    done: set[int]

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self.configuration = content["configuration"]
        self.environments = content["environments"]
        self.done = set()
        self._lock: FileLock | None = None
        self._records: LineFile | None = None
        self._cohen: LineFile | None = None

    @classmethod
    def open(cls, path: str | PathLike[str]) -> RunFolder:
        """Open an existing run to read it; takes no lock and changes nothing.

        Raises:
            RunFolderError: Not a run folder, or damaged.
        """
        folder = Path(path)
        run = cls(folder, read_run_json(folder))
        run.done = {record["index"] for record in run.records()}
        return run

    @classmethod
    def create_or_resume(
        cls,
        path: str | PathLike[str],
        configuration: Mapping[str, Any],
        environment: Mapping[str, Any],
    ) -> RunFolder:
        """Open a run to write, new or where it stopped; close it, or use it in a ``with``.

        Args:
            path: The folder: missing, empty, or a run of the same configuration.
            configuration: What decides the results, as JSON types.
            environment: Facts that may differ from one start to the next, as JSON types.

        Raises:
            RunFolderError: A run of another configuration, a folder of something else, in use by
                another process, damaged, or not writable. Nothing is overwritten.
        """
        folder = Path(path)
        wanted = as_json("configuration", configuration)
        facts = as_json("environment", environment)
        _require_usable(folder)
        lock = lock_folder(folder)
        try:
            content = _start(folder, wanted, facts)
            run = cls(folder, content)
            run._lock = lock
            run._open_files()
        except BaseException:
            lock.release()
            raise
        return run

    def append(self, certificate: AnyCertificate, label: int) -> Record:
        """Write the record of ``certificate.index``; it is on disk when this returns.

        Args:
            certificate: The certificate; its `index` names the image.
            label: The image's true class.

        Raises:
            RunFolderError: Opened to read, the image has a record already, or the disk refused.
        """
        if self._records is None or self._cohen is None:
            raise RunFolderError(f"{self.path} is open to read only")
        record = make_record(certificate, label)
        if record["index"] in self.done:
            raise RunFolderError(f"{self.path} already has a record of image {record['index']}")
        self._records.append(encode(record))
        self.done.add(record["index"])
        self._cohen.append(cohen_row(record))  # should this fail, resuming rebuilds the table
        return record

    def records(self) -> Iterator[Record]:
        """Yield the records in the order they were written; a torn last line is left out.

        Raises:
            RunFolderError: A damaged line, named.
        """
        for record, _ in read_records(self.path / RECORDS):
            yield record

    def frame(self) -> pd.DataFrame:
        """Return the records as a pandas frame: see `deqcert.results.frame`."""
        from deqcert.results.frame import frame

        return frame(self)

    def close(self) -> None:
        """Close the files and release the lock; a second call does nothing."""
        for file in (self._records, self._cohen):
            if file is not None:
                file.close()
        self._records = self._cohen = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RunFolder {self.path}: {len(self.done)} records>"

    def _open_files(self) -> None:
        """Drop a torn last line, rebuild the table from the records, and open both to append."""
        end = 0
        rows = [HEADER]
        for record, end in scan_records(self.path / RECORDS):  # noqa: B007 (the last end is kept)
            self.done.add(record["index"])
            rows.append(cohen_row(record))
        table = "\n".join(rows) + "\n"
        write_atomically(self.path / COHEN, table)
        self._records = LineFile(self.path / RECORDS, end=end)
        try:
            self._cohen = LineFile(self.path / COHEN, end=len(table.encode()))
        except BaseException:
            self._records.close()
            raise


def is_run_folder(path: str | PathLike[str]) -> bool:
    """Whether `path` holds a run (its ``run.json``)."""
    return (Path(path) / RUN).is_file()


def _require_usable(folder: Path) -> None:
    """Create the folder, or check that it is a run's or empty, before touching anything in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise cannot_write(folder, error) from error
    if RUN not in names and names - LEFTOVERS:
        raise RunFolderError(
            f"{folder} is not empty and not a run folder (no {RUN}); choose another folder"
        )


def _start(folder: Path, wanted: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the run's content: written now, or read, compared and brought up to date."""
    if not is_run_folder(folder):
        content = {"format": FORMAT, "configuration": wanted, "environments": [facts]}
        write_atomically(folder / RUN, json.dumps(content, indent=2) + "\n")
        return content
    content = read_run_json(folder)
    require_same(folder, stored=content["configuration"], wanted=wanted)
    if facts not in content["environments"]:
        content["environments"].append(facts)
        write_atomically(folder / RUN, json.dumps(content, indent=2) + "\n")
    return content


def read_run_json(folder: Path) -> dict[str, Any]:
    """Return the content of ``run.json``, checked."""
    path = folder / RUN
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["configuration"], dict):
            raise ValueError("its configuration is not a table")
        if not isinstance(content["environments"], list):
            raise ValueError("its environments are not a list")
        if not all(isinstance(facts, dict) for facts in content["environments"]):
            raise ValueError("its environments are not a list of tables")
        version = content["format"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunFolderError(f"{folder} is not a run folder (no {RUN})") from error
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror or error}") from error
    except KeyError as error:
        raise RunFolderError(f"{path} is damaged: missing {error}") from error
    except (ValueError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged: {error}") from error
    if version != FORMAT:
        raise RunFolderError(
            f"{path} has format {version!r}, but this version reads {FORMAT}; "
            "use the version that wrote it"
        )
    return content
