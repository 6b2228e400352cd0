"""Runners: how the work of a run is spread, and `certify_dataset`, which writes it down."""

from deqcert.runners.base import Runner, Work, Working
from deqcert.runners.dataset import RUNNERS, Watch, certify_dataset
from deqcert.runners.local import LocalRunner
from deqcert.runners.workers import Workers

__all__ = [
    "RUNNERS",
    "LocalRunner",
    "Runner",
    "Watch",
    "Work",
    "Workers",
    "Working",
    "certify_dataset",
]
