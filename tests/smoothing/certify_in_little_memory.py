"""Certify one image in so many megabytes of address space; print records and warnings.

python -m tests.smoothing.certify_in_little_memory MEGABYTES (0: as much as there is)
"""

from __future__ import annotations

import json
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from deqcert.smoothing import Certifier
from tests.problems import LinearDEQ, image_at


class HungryDEQ(LinearDEQ):
    """Takes 4 MB a row on top of what it needs: 1.6 GB for 400 rows."""

    def cell(self, state: torch.Tensor, injection: torch.Tensor) -> torch.Tensor:
        room = state.new_empty(len(state), 1 << 20)  # asked for, hardly touched
        room[:, 0] = 0.5
        return room[:, :1] * state + injection


def certify(method: str) -> dict[str, Any]:
    """Certify by one method; return the record, the rows used in the end, and the warnings."""
    settings = {"serial": "picard:1", "warmup": "picard:2", "reference": "picard:2", "audit": 30}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        certifier = Certifier(HungryDEQ(), sigma=0.25, n0=50, n=450, method=method, **settings)
        # Forget what measuring the margin has found out: memory is to run out under way.
        certifier._batch.rows = 400
        record = certifier.certify(image_at(0.3), seed=0).to_json()
    said = [str(warning.message) for warning in caught]
    return {"record": {**record, "seconds": 0}, "rows": certifier.batch_size, "warnings": said}


def main(megabytes: int) -> None:
    torch.set_num_threads(1)
    if megabytes:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(json.dumps({method: certify(method) for method in ("standard", "srs")}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
