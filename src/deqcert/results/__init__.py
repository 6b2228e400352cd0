"""Run folders, summaries, tables and plots: everything after the last solve, without torch."""

from __future__ import annotations

from deqcert.results.cohen import CohenLog, read_cohen
from deqcert.results.frame import frame
from deqcert.results.reporting import Report, report
from deqcert.results.run_folder import RunFolder, is_run_folder
from deqcert.results.summary import Summary, summarize

__all__ = [
    "CohenLog",
    "Report",
    "RunFolder",
    "Summary",
    "frame",
    "is_run_folder",
    "read_cohen",
    "report",
    "summarize",
]
