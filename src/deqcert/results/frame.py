"""Records as a pandas frame: one row per image, fixed columns and types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deqcert.errors import DeqcertError
from deqcert.results.cohen import CohenLog, read_cohen
from deqcert.results.run_folder import RunFolder
from deqcert.results.summary import L2

if TYPE_CHECKING:
    import pandas as pd

INSTALL_HINT = 'frames need pandas: pip install "deqcert[frame]"'

COLUMNS: dict[str, str] = {
    "label": "int64",
    "prediction": "Int64",
    "abstained": "bool",
    "correct": "bool",
    "status": "string",
    "radius": "float64",
    "norm": "string",
    "method": "string",
    "guarantee": "string",
    "p_lower": "Float64",
    "sigma": "Float64",
    "alpha": "Float64",
    "n0": "Int64",
    "n": "Int64",
    "count": "Int64",
    "audit_population": "Int64",
    "audit_drawn": "Int64",
    "audit_disagreements": "Int64",
    "steps_median": "Float64",
    "residual_median": "Float64",
    "unconverged": "Int64",
    "cell_evaluations": "Int64",
    "seconds": "Float64",
    "seed": "object",
}
"""Types by column. Those in capitals can be missing (``pandas.NA``): a class where the image is
abstained, draws and audits where there are none, what a log of others does not tell. Seeds are
Python's integers, since they may have any size."""

MEDIAN = "0.5"


class MissingPandasError(DeqcertError):
    """pandas is not installed; the message says how to get it."""


def frame(run: str | PathLike[str] | RunFolder | CohenLog) -> pd.DataFrame:
    """Return a run's records as a frame, indexed by image, with the columns of `COLUMNS`.

    ``frame.attrs["configuration"]`` holds the run's configuration. Class counts, plans and solver
    names are left to the records.

    >>> table = frame("runs/first")  # doctest: +SKIP
    >>> (table.correct & (table.radius >= 0.5)).mean()  # doctest: +SKIP

    Args:
        run: A run folder or its path, or a log that others published or its path.

    Raises:
        MissingPandasError: pandas is not installed.
        RunFolderError: No run, or a damaged one.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingPandasError(INSTALL_HINT) from error
    opened = _open(run)
    records = list(opened.records())
    columns = {
        name: pd.array([_value(record, name) for record in records], dtype=kind)  # pyright: ignore[reportArgumentType, reportCallIssue]
        for name, kind in COLUMNS.items()
    }
    index = pd.Index([record["index"] for record in records], dtype="int64", name="index")
    table = pd.DataFrame(columns, index=index)
    table.attrs["configuration"] = dict(opened.configuration)
    return table


def _open(run: str | PathLike[str] | RunFolder | CohenLog) -> RunFolder | CohenLog:
    if isinstance(run, (RunFolder, CohenLog)):
        return run
    path = Path(run)
    return read_cohen(path) if path.is_file() else RunFolder.open(path)


def _value(record: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column, None where the record has none."""
    special = _SPECIAL.get(column)
    return record.get(column) if special is None else special(record)


def _audit(key: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda record: (record.get("audit") or {}).get(key)


_SPECIAL: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "abstained": lambda record: record["prediction"] is None,
    "norm": lambda record: record.get("norm", L2),
    "audit_population": _audit("population"),
    "audit_drawn": _audit("drawn"),
    "audit_disagreements": _audit("disagreements"),
    "steps_median": lambda record: (record.get("steps") or {}).get(MEDIAN),
    "residual_median": lambda record: (record.get("residual") or {}).get(MEDIAN),
}
