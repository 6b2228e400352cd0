"""Another implementation in a process of its own, asked over its standard input and output.

`--beside COMMAND` starts COMMAND, which prints one line of JSON about itself (`name`, `version`,
`remarks`: a list of what was changed to run it) and then answers each line of JSON by one:

    {"do": "load", "architecture", "model", "weights", "threads"}
        `weights` is a file {"state_dict": ...} with the names of the public MDEQ code (none for
        architectures it lacks); `model` is a folder for `deqcert.load_model`.
    {"do": "labels", "images", "steps", "tolerance", "batch"} -> labels, seconds, cell_evaluations
        `images` is an NPY file of noisy images, (count, C, H, W).
    {"do": "certify", "image", "method", "sigma", "n0", "n", "alpha", "batch", "steps", "tolerance",
     "seed"} -> prediction (null: abstained), radius, seconds, cell_evaluations
        `image` is an NPY file, (C, H, W); `method` is "standard" or "srs".

`{"error": ...}` is an answer too. Seconds are its own, around its own work alone. It is silent and
idle while it is not asked, so that measurements take turns on one machine. Nothing of another
implementation is part of this project: whoever measures beside it writes these fifty lines for it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deqcert.models import MDEQ, save_model
from deqcert.models.public_names import public_names
from deqcert.models.zoo import ARCHITECTURES


class Beside:
    """The other process; a context manager."""

    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(
            shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._folder = tempfile.TemporaryDirectory()
        self.facts = self._answer()

    def load(self, model: MDEQ, *, threads: int) -> dict[str, Any]:
        """Hand over the weights, in the public format and in ours."""
        folder = Path(self._folder.name)
        request: dict[str, Any] = {"do": "load", "threads": threads, "architecture": None}
        if model.config.head == "bottleneck":
            request["architecture"] = architecture_of(model)
            request["weights"] = str(folder / "weights.pth.tar")
            torch.save({"state_dict": public_state(model)}, request["weights"])
        request["model"] = str(folder / "model")
        save_model(model, request["model"])
        return self.ask(**request)

    def labels(self, images: Tensor, **how: Any) -> dict[str, Any]:  # images: (count, C, H, W)
        """Let it label noisy images."""
        return self.ask(do="labels", images=self._put("images", images), **how)

    def certify(self, image: Tensor, **how: Any) -> dict[str, Any]:  # image: (C, H, W)
        """Let it certify one image."""
        return self.ask(do="certify", image=self._put("image", image), **how)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to one request.

        Raises:
            RuntimeError: It answers an error, or not at all.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _put(self, name: str, values: Tensor) -> str:
        path = Path(self._folder.name) / f"{name}.npy"
        np.save(path, values.numpy())
        return str(path)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the other implementation ended with {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"the other implementation says: {answer['error']}")
        return answer

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


def architecture_of(model: MDEQ) -> str:
    """Return the name of the architecture with the model's channels and image size."""
    wanted = (model.config.channels, model.config.input_shape)
    return next(n for n, c in ARCHITECTURES.items() if (c.channels, c.input_shape) == wanted)


def public_state(model: MDEQ) -> dict[str, Tensor]:
    """Return the state dict of `model` under the public names.

    Public models have no standardisation in it, and count BatchNorm's batches, which they do not
    read in eval mode.
    """
    own = model.state_dict()
    return {public: own[name].clone() for public, name in public_names(model.config).items()}
