"""The HTML report: one page that opens offline and explains itself."""

from __future__ import annotations

from deqcert.results.html.page import MissingPageLibraryError, render_page
from deqcert.results.html.runs import ReportedRun, read_run

__all__ = ["MissingPageLibraryError", "ReportedRun", "read_run", "render_page"]
