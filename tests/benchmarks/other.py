"""A small other implementation for `benchmarks/beside.py`: our model as trained, in a loop."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import torch

import deqcert as dc
from deqcert.solvers import solve
from deqcert.stats import certified_radius, clopper_pearson_lower


class Other:
    def load(self, *, model: str, threads: int, **others: Any) -> dict[str, Any]:
        torch.set_num_threads(threads)
        self.model = dc.load_model(model)
        return {"architecture": others["architecture"]}

    @torch.no_grad()
    def labels(self, *, images: str, steps: int, **others: Any) -> dict[str, Any]:
        del others
        started = time.perf_counter()
        label = self._label(torch.from_numpy(np.load(images)), steps)
        spent = time.perf_counter() - started
        return {"labels": label.tolist(), "seconds": spent, "cell_evaluations": steps * len(label)}

    @torch.no_grad()
    def certify(
        self, *, image: str, method: str, sigma: float, n0: int, n: int, alpha: float, seed: int,
        steps: int, **others: Any,
    ) -> dict[str, Any]:  # fmt: skip
        del others
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        clean = torch.from_numpy(np.load(image))
        steps = steps if method == "standard" else 3
        noise = sigma * torch.randn(n0 + n, *clean.shape, generator=generator)
        label = self._label(clean + noise, steps)
        top = int(label[:n0].bincount().argmax())
        lower = clopper_pearson_lower(int((label[n0:] == top).sum()), n, alpha)
        return {
            "prediction": top if lower > 0.5 else None,
            "radius": certified_radius(lower, sigma),
            "seconds": time.perf_counter() - started,
            "cell_evaluations": steps * (n0 + n),
        }

    def _label(self, x: torch.Tensor, steps: int) -> torch.Tensor:
        injection = self.model.inject(x)
        start = self.model.initial_state(injection)
        found = solve(self.model.cell, start, injection, spec=f"anderson:{steps}")
        return self.model.classify(found.state).argmax(1)


def main() -> None:
    other = Other()
    print(json.dumps({"name": "other", "version": "1", "remarks": ["a test"]}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "end":
            sys.exit(3)
        try:
            answer = getattr(other, request.pop("do"))(**request)
        except AttributeError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
