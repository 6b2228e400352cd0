"""Run folders, summaries, tables and plots: everything after the last solve, without torch."""

from __future__ import annotations

from deqcert.results.run_folder import RunFolder, is_run_folder

__all__ = ["RunFolder", "is_run_folder"]
