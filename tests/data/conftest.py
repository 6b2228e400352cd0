"""Where the original data files are, for the tests that need them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


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
