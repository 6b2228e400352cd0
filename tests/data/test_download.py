"""Downloads, from a real server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from deqcert.data.files import Remote
from deqcert.errors import DataError
from tests.data import test_cifar, test_idx


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_missing_files_are_downloaded_once(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    test_idx.lay_out(folder)
    source = replace(test_idx.SOURCE, urls=(url + "nothing-here/", url))
    pixels, _ = source("test", tmp_path / "data", True)
    np.testing.assert_array_equal(pixels, test_idx.PIXELS[:, None])
    for path in folder.iterdir():
        path.unlink()
    assert len(source("test", tmp_path / "data", False)[1]) == 5


def test_download_with_another_checksum_is_refused(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    folder, url = served
    test_idx.lay_out(folder)
    (folder / (test_idx.IMAGE_STEM + ".gz")).write_bytes(b"something else")
    source = replace(test_idx.SOURCE, urls=(url,))
    with pytest.raises(DataError, match=r"could not download.*hash") as caught:
        source("test", tmp_path / "data", True)
    assert "download it by hand" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p for p in (tmp_path / "data").rglob("*") if p.is_file()] == []


def test_unreachable_server_is_one_line(tmp_path: Path) -> None:
    source = replace(test_idx.SOURCE, urls=("http://127.0.0.1:9/",))
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/: no connection") as caught:
        source("test", tmp_path, True)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no connection"):
        source("test", tmp_path / "mistyped", True)
    assert not (tmp_path / "mistyped").exists()


def test_cifar_archive_is_downloaded(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    test_cifar.pack(folder / "cifar-10-binary.tar.gz", "cifar-10-batches-bin")
    content = (folder / "cifar-10-binary.tar.gz").read_bytes()
    remote = Remote(
        name="cifar-10-binary.tar.gz",
        known_hash=f"md5:{hashlib.md5(content).hexdigest()}",
        urls=(url,),
    )
    source = replace(test_cifar.SOURCE, archive=remote)
    _, labels = source("test", tmp_path / "data", True)
    np.testing.assert_array_equal(labels, test_cifar.BATCHES["test_batch"][:, 0])
    assert (tmp_path / "data" / "small" / "cifar-10-binary.tar.gz").read_bytes() == content


def test_place_that_cannot_be_written(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = served
    test_idx.lay_out(folder)
    (tmp_path / "taken").write_text("notes")
    source = replace(test_idx.SOURCE, urls=(url,))
    with pytest.raises(DataError, match="could not download"):
        source("test", tmp_path / "taken", True)
    assert (tmp_path / "taken").read_text() == "notes"
