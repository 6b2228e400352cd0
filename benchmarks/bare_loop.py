"""Certify some images in a plain loop, with no run folder: what `runners.py` compares with.

    python benchmarks/bare_loop.py SETTINGS

SETTINGS is JSON: model, sigma, n, method, data, indices, threads. When everything is loaded it
prints ``ready`` and waits for a line; then it prints the time after every image.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

import deqcert as dc


def certifier(settings: dict[str, Any]) -> dc.Certifier:
    """Return the certifier of the settings."""
    model = dc.load_model(settings["model"])
    options = {name: settings[name] for name in ("sigma", "n", "method", "reference", "audit")}
    return dc.Certifier(model, **options)


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    data, subject = dc.load_data(settings["data"]), certifier(settings)
    print("ready", flush=True)
    sys.stdin.readline()
    for index in settings["indices"]:
        subject.certify(data[index].image, seed=0, index=index)
        print(time.time(), flush=True)


if __name__ == "__main__":
    main()
