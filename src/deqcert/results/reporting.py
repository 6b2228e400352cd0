"""`report`: tables and curves of one or several runs."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from deqcert.errors import ConfigurationError, RunFolderError
from deqcert.results import plots, tables
from deqcert.results.cohen import CohenLog, read_cohen
from deqcert.results.files import cannot_write, write_atomically
from deqcert.results.notes import WARNING, notes_on
from deqcert.results.run_folder import RunFolder
from deqcert.results.summary import (
    L2,
    LINF,
    Record,
    Summary,
    check_radii,
    correct_radii,
    default_linf_radii,
    default_radii,
    norm_of,
    summarize,
)

FOLDER = "report"
PAGE = "report.html"


@runtime_checkable
class HasPath(Protocol):
    """Anything that knows its run folder."""

    @property
    def path(self) -> str | PathLike[str]:
        """The run folder."""
        ...


Run = str | PathLike[str] | HasPath


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `report` found; printing it shows the table.

    Attributes:
        summaries: One per run, in the order given.
        notes: What a reader must know to read the numbers.
        files: Files written, none for several runs without a folder.
    """

    summaries: tuple[Summary, ...]
    notes: tuple[str, ...]
    files: tuple[Path, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        groups = by_norm(self.summaries)
        for group in groups:
            if len(groups) > 1:
                yield Text(tables.heading(group), style="bold underline")
            for table in tables.terminal(group, width=options.max_width):
                yield table
                yield Text()
        for note in self.notes:
            yield Text(note, style=_note_style(note))
        if self.files:
            names = ", ".join(path.name for path in self.files)
            yield Text()
            # A long path goes on in the next line; without wrapping the console would cut it off.
            yield Text(f"written to {self.files[0].parent}:", overflow="fold")
            yield Text(names)

    def __str__(self) -> str:
        width = shutil.get_terminal_size((100, 24)).columns
        console = Console(file=io.StringIO(), width=width, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())


@dataclass(frozen=True)
class _Read:
    """A run as read: folder, name, records."""

    folder: RunFolder | CohenLog
    name: str
    records: list[Record]


def report(
    runs: Run | Sequence[Run],
    *,
    radii: Iterable[float] | None = None,
    linf_radii: Iterable[float] | None = None,
    out: str | PathLike[str] | None = None,
    rho: float = 0.001,
    html: bool = False,
) -> Report:
    """Summarise one or several runs: a table to print, files to keep.

    Writes ``table.md``, ``table.tex``, ``summary.csv``, ``summary.json`` and
    ``certified_accuracy`` as PNG and PDF, replacing an earlier report there (not its page). Where
    some runs certify in L2 and others in Linf, each norm has tables and curves of its own, their
    names ending in ``_L2`` and ``_Linf``. Reads records only; nothing is recomputed.

    Args:
        runs: A run folder's path, a `RunFolder`, or a sequence of them; or logs that others
            published, as a file's path or from `read_cohen`, shown as published.
        radii: Radii of the table, pixel units; those of L2 where there are both norms. Default
            multiples of sigma / 2, or of a round number.
        linf_radii: Radii of the Linf table where there are both norms; default 0, 1/255, 2/255,
            4/255 and so on.
        out: Folder for the files; default ``report`` in the folder of a single run. Several runs
            without `out` write nothing.
        rho: Failure probability of each high-probability accuracy, in (0, 1).
        html: Write ``report.html`` too: one page that opens offline, with interactive curves and a
            table of all images. Runs without records are then allowed.

    Raises:
        RunFolderError: Not a run folder, no records yet, damaged, or the disk refused.
        ConfigurationError: No runs, a radius or `rho` out of range, or a page of several runs
            without `out`.
        MissingPageLibraryError: What `html` needs is not installed.
    """
    folders = _opened(runs)
    read = [
        _Read(folder, name, list(folder.records()))
        for folder, name in zip(folders, _names(folders), strict=True)
    ]
    place = Path(out) if out is not None else _own_place(folders)
    _require_page_place(place, html)
    empty = [run for run in read if not run.records]
    if empty and not html:
        raise RunFolderError(f"{empty[0].folder.path} has no records yet")
    full = [run for run in read if run.records]
    summaries = _summaries(full, radii, linf_radii, rho)
    notes = notes_on([run.folder for run in full], [run.records for run in full], summaries)
    notes += [f"{run.name} has no records yet." for run in empty]
    files: list[Path] = []
    if place is not None:
        page = {PAGE: _page(read, summaries, notes)} if html else {}
        files, more = _write(place, full, summaries, notes, page)
        notes += more
    return Report(summaries=tuple(summaries), notes=tuple(notes), files=tuple(files))


def _summaries(
    read: Sequence[_Read],
    radii: Iterable[float] | None,
    linf_radii: Iterable[float] | None,
    rho: float,
) -> list[Summary]:
    """Return the summaries of runs with records, all of one norm at the same radii."""
    grids = _grids([run.records for run in read], radii, linf_radii)
    return [
        summarize(run.records, radii=grids[norm_of(run.records)], name=run.name, rho=rho)
        for run in read
    ]


def _require_page_place(place: Path | None, html: bool) -> None:
    if html and place is None:
        raise ConfigurationError(
            "an HTML report of several runs needs a folder: out (--out FOLDER)"
        )


def _page(read: Sequence[_Read], summaries: Sequence[Summary], notes: Sequence[str]) -> str:
    """Return the page of all runs, with and without records."""
    from deqcert.results.html import read_run, render_page

    found = {summary.name: summary for summary in summaries}
    runs = [
        read_run(run.folder, run.records, number=number, name=run.name, summary=found.get(run.name))
        for number, run in enumerate(read)
    ]
    return render_page(runs, notes)


def _note_style(note: str) -> str:
    return "bold red" if note.startswith(WARNING) else "dim"


def _opened(runs: Run | Sequence[Run]) -> list[RunFolder | CohenLog]:
    """Return the runs, open to read; a file is a log that others published."""
    single = isinstance(runs, (str, PathLike, HasPath))
    listed = [runs] if single else list(runs)  # pyright: ignore[reportArgumentType]
    if not listed:
        raise ConfigurationError("report needs at least one run")
    return [run if isinstance(run, CohenLog) else _open(run) for run in listed]


def _open(run: Run) -> RunFolder | CohenLog:
    path = Path(run.path if isinstance(run, HasPath) else run)
    return read_cohen(path) if path.is_file() else RunFolder.open(path)


def _own_place(folders: Sequence[RunFolder | CohenLog]) -> Path | None:
    """Return where the report of a single run goes if nothing else is said."""
    only = folders[0] if len(folders) == 1 else None
    return only.path / FOLDER if isinstance(only, RunFolder) else None


def _names(folders: Sequence[RunFolder | CohenLog]) -> list[str]:
    """Return the shortest ends of the folders' paths that tell them apart."""
    parts = [folder.path.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigurationError("report got the same run twice")


def by_norm(summaries: Sequence[Summary]) -> list[list[Summary]]:
    """Return the runs in groups of one norm, L2 first: what may stand in one table or curve."""
    groups = [[s for s in summaries if s.norm == norm] for norm in (L2, LINF)]
    return [group for group in groups if group]


def _grids(
    records: Sequence[Sequence[Record]],
    radii: Iterable[float] | None,
    linf_radii: Iterable[float] | None,
) -> dict[str, list[float]]:
    """Return the radii of each norm's table."""
    norms = {norm_of(rows) for rows in records}
    if linf_radii is not None and norms != {L2, LINF}:
        raise ConfigurationError("linf_radii are for reports of both norms; give radii")
    given = {L2: radii, LINF: radii if norms == {LINF} else linf_radii}
    grids = {}
    for norm in norms:
        rows = [group for group in records if norm_of(group) == norm]
        wanted = given[norm]
        grids[norm] = check_radii(wanted) if wanted is not None else _default_grid(norm, rows)
    return grids


def _default_grid(norm: str, records: Sequence[Sequence[Record]]) -> list[float]:
    largest = max(max(correct_radii(rows), default=0.0) for rows in records)
    if norm == LINF:
        return default_linf_radii(largest)
    return default_radii([rows[0]["sigma"] for rows in records if rows[0].get("sigma")], largest)


def _write(
    place: Path,
    read: Sequence[_Read],
    summaries: Sequence[Summary],
    notes: Sequence[str],
    page: Mapping[str, str],
) -> tuple[list[Path], list[str]]:
    """Write all files into `place`; return their paths, and a note where plots are missing."""
    groups = by_norm(summaries)
    runs = {run.name: (run.folder, run.records) for run in read}
    contents: dict[str, str | bytes] = {}
    more: list[str] = []
    for group in groups:
        ending = f"_{group[0].norm}" if len(groups) > 1 else ""
        contents |= {
            f"table{ending}.md": tables.markdown(group, notes),
            f"table{ending}.tex": tables.latex(group, notes),
            f"summary{ending}.csv": _as_csv(group),
        }
        own_folders, own_records = zip(*(runs[summary.name] for summary in group), strict=True)
        try:
            pictures = _pictures(own_folders, own_records, group)
        except plots.MissingMatplotlibError as error:
            more = [f"No curves were drawn; {error}"]
        else:
            contents |= {f"certified_accuracy{ending}.{k}": data for k, data in pictures.items()}
    contents["summary.json"] = json.dumps([s.to_json() for s in summaries], indent=2) + "\n"
    contents |= page
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(place, error) from error
    for name, content in contents.items():
        write_atomically(place / name, content)
    more += _remove_earlier(place, contents)
    return [place / name for name in contents], more


def _remove_earlier(place: Path, written: Container[str]) -> list[str]:
    """Remove what an earlier report of other norms left; return a note on a page of its.

    A table and a curve of two reports side by side would be taken for those of one.
    """
    stems = (("table", "md"), ("table", "tex"), ("summary", "csv"))
    drawn = tuple(("certified_accuracy", kind) for kind in ("png", "pdf"))
    for stem, kind in (*stems, *drawn):
        for ending in ("", f"_{L2}", f"_{LINF}"):
            if (name := f"{stem}{ending}.{kind}") not in written:
                with contextlib.suppress(OSError):
                    (place / name).unlink(missing_ok=True)
    if PAGE in written or not (place / PAGE).exists():
        return []
    return [f"{place / PAGE} is of an earlier report; ask for it (--html) to make it anew."]


def _pictures(
    folders: Sequence[RunFolder | CohenLog],
    records: Sequence[Sequence[Record]],
    summaries: Sequence[Summary],
) -> dict[str, bytes]:
    """Return the curves of runs of one norm as PNG and PDF."""
    figure = plots.certified_accuracy_figure(
        _curves(records, summaries),
        radii=summaries[0].radii,
        title=_title(folders, summaries),
        norm=summaries[0].norm,
    )
    return {kind: plots.encode(figure, kind) for kind in ("png", "pdf")}


def _curves(records: Sequence[Sequence[Record]], summaries: Sequence[Summary]) -> list[plots.Curve]:
    return [
        plots.Curve(
            name=summary.name,
            guarantee=summary.guarantee,
            correct_radii=tuple(correct_radii(rows)),
            images=summary.images,
        )
        for rows, summary in zip(records, summaries, strict=True)
    ]


def _title(folders: Sequence[RunFolder | CohenLog], summaries: Sequence[Summary]) -> str:
    """Say what all runs share: data set, sigma, number of draws."""
    data = {
        " ".join(
            str(folder.configuration[key])
            for key in ("data", "split")
            if key in folder.configuration
        )
        for folder in folders
        if isinstance(folder, RunFolder)
    }
    sigmas, draws = {s.sigma for s in summaries}, {s.n for s in summaries}
    facts = [
        data.pop() if len(data) == 1 else "",
        *(f"$\\sigma$ = {sigma:g}" for sigma in sigmas if sigma is not None and len(sigmas) == 1),
        *(f"n = {n:,}" for n in draws if n is not None and len(draws) == 1),
    ]
    return ", ".join(fact for fact in facts if fact)


def _as_csv(summaries: Sequence[Summary]) -> str:
    """Return one row per run, a column per number, full precision."""
    stream = io.StringIO()
    rows = [_flat(summary) for summary in summaries]
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _flat(summary: Summary) -> dict[str, Any]:
    table = summary.to_json()
    del table["guarantees"]  # a table of its own; it is in the JSON file
    radii = table.pop("radii")
    plain = table.pop("certified_accuracy")
    bounds = table.pop("high_probability_accuracy") or [None] * len(radii)
    for radius, share in zip(radii, plain, strict=True):
        table[f"certified_accuracy_{radius:g}"] = share
    for radius, bound in zip(radii, bounds, strict=True):
        table[f"high_probability_accuracy_{radius:g}"] = bound
    return table
