"""Facts that may differ between the sessions of one run without changing its records."""

from __future__ import annotations

import functools
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch

import deqcert
from deqcert.models import EquilibriumModel, available_models
from deqcert.models.families import family_of

CHANGED = "+changes"
"""Ends the commit of a package that was not as committed."""


def software() -> dict[str, Any]:
    """Return versions and machine: what decides the last bits of a number."""
    return {
        "deqcert": deqcert.__version__,
        "commit": package_commit(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def model_facts(model: EquilibriumModel, digest: str) -> dict[str, Any]:
    """Return what the model is called: help for people, the digest alone decides.

    Its ``model`` is the zoo name of these very weights, or the architecture that its card names,
    or None; ``architecture`` is the family, or the name of the class.
    """
    named = (entry.name for entry in available_models() if entry.card.get("weights") == digest)
    own = model.card if model.card and model.card.get("weights") == digest else {}
    return {
        "model": next(named, own.get("model", {}).get("name")),
        "architecture": family_of(model) or type(model).__name__,
    }


@functools.cache
def package_commit() -> str | None:
    """Return the git commit this package runs from, or None where it is no checkout.

    Uncommitted changes of the package are marked by `CHANGED`.
    """
    package = Path(deqcert.__file__).parent
    root = package.parents[1]
    if not (root / ".git").exists() or package != root / "src" / "deqcert":
        return None  # installed; a repository further up would be somebody else's
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--", str(package))
    if commit is None or status is None:
        return None
    return commit + (CHANGED if status else "")


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git says, or None where it cannot."""
    try:
        # Without its locks: another git may be at work, and the index is not ours to write.
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
