"""Triton's kernels on a machine without a GPU: in the interpreter, and what a compiler makes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def passed_in_the_interpreter(file: str) -> int:
    """Run a test file in a process of its own, since Triton reads TRITON_INTERPRET when imported.

    Return how many of its tests passed; all must, and none be skipped.
    """
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", file]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "skipped" not in done.stdout
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    return int(passed)


def spilled(machine_code: bytes, folder: Path) -> int:
    """Return the bytes of memory that stand in for registers in a kernel for NVIDIA's GPUs."""
    said = _said_of(machine_code, folder, "cuobjdump", "--dump-resource-usage")
    (stack,) = re.findall(r"STACK:(\d+)", said)
    return int(stack)


def dropped(machine_code: bytes, folder: Path) -> list[str]:
    """Return the packed additions of a constant: ptxas up to 13.0 makes zeros of some.

    https://github.com/triton-lang/triton/issues/11581
    """
    said = _said_of(machine_code, folder, "nvdisasm", "-c")
    return re.findall(r"VIADD\.16x2 [^;]*, -?0x[^;]*", said)


def _said_of(machine_code: bytes, folder: Path, tool: str, *options: str) -> str:
    import triton

    (folder / "cubin").write_bytes(machine_code)
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
    command = [path, *options, folder / "cubin"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
