"""Help answers at once: it imports no large library (times: benchmarks/startup.py)."""

from __future__ import annotations

import subprocess
import sys

import pytest

LARGE = (
    "torch", "numpy", "scipy", "matplotlib", "ray", "numba", "pandas", "plotly", "jinja2", "PIL",
    "safetensors", "huggingface_hub", "torchdeq", "tensorboard", "pooch", "sklearn",
)  # fmt: skip
PROGRAM = """
import sys
from deqcert.cli import main
sys.argv = ["deqcert", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print("imported:", *(name for name in sys.modules if "." not in name))
"""


def imported(*arguments: str) -> set[str]:
    """Run a command in a process of its own; return the names of all top-level modules."""
    shown = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], check=True, capture_output=True, text=True
    ).stdout
    last = shown.splitlines()[-1]
    assert last.startswith("imported:")
    return set(last.split()[1:])


@pytest.mark.parametrize(
    "command",
    ["", "certify", "predict", "train", "report", "verify", "attack", "watch", "models", "data"],
)
def test_help_imports_nothing_large(command: str) -> None:
    found = imported(*([command] if command else []), "--help")
    assert "deqcert" in found
    assert found.isdisjoint(LARGE), found.intersection(LARGE)


def test_the_package_alone_imports_nothing_large() -> None:
    code = "import sys, deqcert; print(*(name for name in sys.modules if '.' not in name))"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert set(shown.stdout.split()).isdisjoint(LARGE)
