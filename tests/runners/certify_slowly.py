"""A run to be killed: certifies digits with fresh weights, by so many workers.

Run by tests in a process of its own: ``python -m tests.runners.certify_slowly OUT [WORKERS]``.
"""

from __future__ import annotations

import sys

from deqcert.data import load_data
from deqcert.runners import certify_dataset
from deqcert.smoothing import Certifier
from tests.runners.subjects import small_model


def certify(out: str, workers: int = 1, *, limit: int = 12) -> None:
    """Certify the first `limit` test digits by srs, with every number fixed."""
    certifier = Certifier(
        small_model(), sigma=0.5, n0=40, n=2000, serial="picard:1", warmup="picard:3", audit=200
    )
    data = load_data("digits")
    certify_dataset(certifier, data, out=out, seed=11, limit=limit, workers=workers)


if __name__ == "__main__":
    certify(sys.argv[1], *map(int, sys.argv[2:]))
