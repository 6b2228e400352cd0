"""MNIST's format: small files made here everywhere, the original files where they are."""

from __future__ import annotations

import gzip
import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deqcert.data import load_data
from deqcert.data.idx import STEMS, Checksums, IdxSource
from deqcert.errors import DataError

PIXELS = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (5, 4, 3), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.tobytes()


IMAGE_STEM, LABEL_STEM = STEMS["test"]
CONTENT = {IMAGE_STEM: idx(PIXELS), LABEL_STEM: idx(LABELS)}


def _gz(content: bytes) -> bytes:
    """Compress without the time of day, so that every test process collects the same tests."""
    return gzip.compress(content, mtime=0)


GZ = {stem: _gz(content) for stem, content in CONTENT.items()}
SOURCE = IdxSource(
    name="small",
    subfolders=("small", "Small/raw"),
    checksums={
        stem: Checksums(
            gz=hashlib.sha256(GZ[stem]).hexdigest(),
            content=hashlib.sha256(CONTENT[stem]).hexdigest(),
        )
        for stem in CONTENT
    },
    urls=(),
)


def lay_out(folder: Path, *, zipped: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for stem in CONTENT:
        name, content = (stem + ".gz", GZ[stem]) if zipped else (stem, CONTENT[stem])
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", [".", "small", "Small/raw"])
def test_files_are_found_and_read(tmp_path: Path, place: str, zipped: bool) -> None:
    lay_out(tmp_path / place, zipped=zipped)
    pixels, labels = SOURCE("test", tmp_path, False)
    np.testing.assert_array_equal(pixels, PIXELS[:, None])
    np.testing.assert_array_equal(labels, LABELS)
    assert labels.dtype == np.int64


def test_own_subfolder_wins_over_another_set_beside_it(tmp_path: Path) -> None:
    for stem in CONTENT:
        (tmp_path / (stem + ".gz")).write_bytes(b"another data set with the same file names")
    lay_out(tmp_path / "small")
    pixels, _ = SOURCE("test", tmp_path, False)
    np.testing.assert_array_equal(pixels, PIXELS[:, None])


def test_folder_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEQCERT_DATA", str(lay_out(tmp_path)))
    assert len(SOURCE("test", None, False)[1]) == 5


def test_missing_files_say_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        SOURCE("test", tmp_path, False)
    message = str(caught.value)
    assert f"no {IMAGE_STEM}.gz or {IMAGE_STEM} in {tmp_path}" in message
    assert "DEQCERT_DATA" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (GZ[IMAGE_STEM][:-20], "truncated or not gzip"),
        (GZ[IMAGE_STEM][:5], "truncated or not gzip"),
        (b"", "not an IDX file|truncated or not gzip"),
        (b"<html>404</html>", "truncated or not gzip"),
        (_gz(CONTENT[IMAGE_STEM][:-1]), "75 bytes, but its header says 76"),
        (_gz(CONTENT[IMAGE_STEM] + b"x"), "77 bytes, but its header says 76"),
        (_gz(CONTENT[IMAGE_STEM][:9]), "truncated"),
        (
            GZ[LABEL_STEM],
            "not an IDX file of 3 dimensions: starts with 00000801, expected 00000803",
        ),
        (_gz(b"\0\0\x0d\x03" + CONTENT[IMAGE_STEM][4:]), "starts with 00000d03"),
        (_gz(idx(PIXELS[::-1])), "is not the original: SHA-256"),
    ],
    ids=range(10),
)
def test_damaged_or_foreign_images(tmp_path: Path, content: bytes, reason: str) -> None:
    lay_out(tmp_path)
    (tmp_path / (IMAGE_STEM + ".gz")).write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        SOURCE("test", tmp_path, False)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_without_a_known_checksum_are_read(tmp_path: Path) -> None:
    own = replace(SOURCE, checksums={})
    assert len(own("test", lay_out(tmp_path), True)[1]) == 5


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("name", "mean", "first"),
    [
        # Published means (0.1307 and 0.2860 on the training sets) and the files' first labels.
        ("mnist", 0.1307, {"train": [5, 0, 4, 1, 9], "test": [7, 2, 1, 0, 4]}),
        ("fashion-mnist", 0.2860, {"train": [9, 0, 0, 3, 0], "test": [9, 2, 1, 1, 6]}),
    ],
)
def test_original_files(
    originals: Path, name: str, mean: float, first: dict[str, list[int]], split: str
) -> None:
    data = load_data(name, split=split, folder=originals, download=False)
    assert len(data) == {"train": 60_000, "test": 10_000}[split]
    assert data.input_shape == (1, 28, 28)
    assert data.labels[:5].tolist() == first[split]
    assert np.bincount(data.labels).min() > 800
    if split == "train":
        assert data.pixels.mean() / 255 == pytest.approx(mean, abs=5e-5)
