"""What a benchmark was measured on: committed beside every number."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

import deqcert


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return processor, its instructions as PyTorch names them, cores, threads and versions."""
    processor = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    return {
        "processor": processor,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "deqcert": deqcert.__version__,
    }
