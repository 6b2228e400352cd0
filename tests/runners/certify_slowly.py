"""A run to be killed: certifies digits with fresh weights; the folder is the only argument.

Run by `test_dataset.py` in a process of its own, as ``python -m tests.runners.certify_slowly OUT``.
"""

from __future__ import annotations

import sys

from deqcert.data import load_data
from deqcert.runners import certify_dataset
from deqcert.smoothing import Certifier
from tests.runners.subjects import small_model


def certify(out: str, *, limit: int = 12) -> None:
    """Certify the first `limit` test digits by srs, with every number fixed."""
    certifier = Certifier(
        small_model(), sigma=0.5, n0=40, n=2000, serial="picard:1", warmup="picard:3", audit=200
    )
    certify_dataset(certifier, load_data("digits"), out=out, seed=11, limit=limit)


if __name__ == "__main__":
    certify(sys.argv[1])
