"""Fixed seeds, and where the original data files are.

Seeds are fixed so that a failure repeats; DEQCERT_UNLOCK_SEED=1 frees them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _fixed_seed():
    if not os.environ.get("DEQCERT_UNLOCK_SEED"):
        torch.manual_seed(0)
        np.random.seed(0)


@pytest.fixture(scope="session")
def originals() -> Path:
    """The folder with the original files, from DEQCERT_TEST_DATA or beside the repository."""
    given = os.environ.get("DEQCERT_TEST_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the original data files: set DEQCERT_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def cifar_folder(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with CIFAR-10's binary files, rebuilt where only the lossless sheets are stored."""
    if (originals / "cifar-10-batches-bin").is_dir():
        return originals
    if not (originals / "unpack").is_file():
        pytest.skip("needs cifar-10-batches-bin in DEQCERT_TEST_DATA")
    folder = tmp_path_factory.mktemp("cifar")
    subprocess.run([sys.executable, str(originals / "unpack"), str(folder)], check=True)
    return folder
