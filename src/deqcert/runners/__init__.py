"""Runners: how the work of a run is spread, and `certify_dataset`, which writes it down."""

from deqcert.runners.base import Runner
from deqcert.runners.dataset import RUNNERS, Watch, certify_dataset
from deqcert.runners.local import LocalRunner

__all__ = ["RUNNERS", "LocalRunner", "Runner", "Watch", "certify_dataset"]
