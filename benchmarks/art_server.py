"""The smoothing estimator of adversarial-robustness-toolbox, as `beside.py` asks for it.

    python benchmarks/same_work.py --beside "PYTHON benchmarks/art_server.py" ...

PYTHON is one that has `adversarial-robustness-toolbox` beside deqcert; it is no dependency of ours.
The estimator wraps our own model in its ordinary form, 30 Anderson steps from the same weights, as
a user would wrap it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from art.estimators.certification.randomized_smoothing import (  # pyright: ignore
    PyTorchRandomizedSmoothing,
)
from art.estimators.classification import PyTorchClassifier  # pyright: ignore

import deqcert as dc

REMARKS = [
    "all n noisy copies are made at once, in float64 by NumPy's global generator: memory grows "
    "with n",
    "selection and estimation draws are apart and the bound is Clopper-Pearson's at alpha, one "
    "sided: sound where the classifier labels each draw by itself; a draw whose logits are NaN is "
    "counted for the class of its first NaN",
    "the random state is global and is not recorded; radii are not rounded down",
    "wraps our model in its ordinary form (weight norm and BatchNorm not folded)",
]


class Server:
    """Answers requests about one model."""

    def load(self, *, model: str, threads: int, **others: Any) -> dict[str, Any]:
        """Load our model by name."""
        del others
        torch.set_num_threads(threads)
        self.model = dc.load_model(model)
        return {"threads": torch.get_num_threads()}

    def labels(
        self, *, images: str, batch: int, steps: int, tolerance: float = 0.0
    ) -> dict[str, Any]:
        """Label noisy images by the estimator's classifier."""
        smoothed = self._estimator(steps, tolerance, sigma=1.0, n0=1, alpha=0.5)
        x = np.load(images)
        started = time.perf_counter()
        logits = PyTorchClassifier.predict(smoothed, x, batch_size=batch)
        seconds = time.perf_counter() - started
        return {
            "labels": logits.argmax(1).tolist(),
            "seconds": seconds,
            "cell_evaluations": steps * len(x),
        }

    def certify(
        self, *, image: str, sigma: float, n0: int, n: int, alpha: float, batch: int, steps: int,
        seed: int, tolerance: float = 0.0, method: str = "standard",
    ) -> dict[str, Any]:  # fmt: skip
        """Certify one image by the estimator."""
        if method != "standard":
            raise ValueError("the estimator has the standard method alone")
        smoothed = self._estimator(steps, tolerance, sigma=sigma, n0=n0, alpha=alpha)
        x = np.load(image)[None]
        np.random.seed(seed)
        started = time.perf_counter()
        prediction, radius = smoothed.certify(x, n=n, batch_size=batch)
        return {
            "seconds": time.perf_counter() - started,
            "prediction": None if prediction[0] == -1 else int(prediction[0]),
            "radius": float(radius[0]),
            "cell_evaluations": steps * (n0 + n),
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    def _estimator(
        self, steps: int, tolerance: float, *, sigma: float, n0: int, alpha: float
    ) -> PyTorchRandomizedSmoothing:
        self.model.solver = dc.SolverSpec("anderson", steps, tol=tolerance)
        return PyTorchRandomizedSmoothing(
            self.model,
            torch.nn.CrossEntropyLoss(),
            input_shape=self.model.input_shape,
            nb_classes=self.model.num_classes,
            device_type="cpu",
            sample_size=n0,
            scale=sigma,
            alpha=alpha,
        )


def main() -> None:
    server = Server()
    name = "adversarial-robustness-toolbox"
    print(json.dumps({"name": name, "version": version(name), "remarks": REMARKS}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(server, request.pop("do"))(**request)
        except Exception as error:  # the asker decides what to do about it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
