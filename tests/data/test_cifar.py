"""CIFAR-10's forms: small batches made here everywhere, the original files where they are."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from deqcert.data import load_data
from deqcert.data.cifar import RECORD, CifarSource, parse_python
from deqcert.data.safe_pickle import read_table
from deqcert.errors import DataError
from tests.data.python2_pickle import batch_pickle

GENERATOR = np.random.Generator(np.random.PCG64(1))
NAMES = ("data_batch_1", "data_batch_2", "test_batch")


def records(count: int) -> np.ndarray:
    made = GENERATOR.integers(0, 256, (count, RECORD), dtype=np.uint8)
    made[:, 0] %= 10
    return made


BATCHES = {name: records(count) for name, count in zip(NAMES, (3, 2, 4), strict=True)}
SOURCE = CifarSource(
    name="small",
    batches={"train": NAMES[:2], "test": NAMES[2:]},
    checksums={name: hashlib.sha256(made.tobytes()).hexdigest() for name, made in BATCHES.items()},
    archive=None,
)


def python3_batch(made: np.ndarray, protocol: int) -> bytes:
    table = {"batch_label": "made here", "labels": made[:, 0].tolist(), "data": made[:, 1:].copy()}
    return pickle.dumps(table, protocol=protocol)


FORMS = {
    "cifar-10-batches-bin": {f"{name}.bin": made.tobytes() for name, made in BATCHES.items()},
    "cifar-10-batches-py": {name: batch_pickle(made) for name, made in BATCHES.items()},
}


def lay_out(folder: Path, form: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FORMS[form].items():
        (folder / name).write_bytes(content)


def pack(path: Path, form: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in FORMS[form].items():
            member = tarfile.TarInfo(f"{form}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def require_all(folder: Path) -> None:
    for split, names in SOURCE.batches.items():
        pixels, labels = SOURCE(split, folder, False)
        expected = np.concatenate([BATCHES[name] for name in names])
        np.testing.assert_array_equal(labels, expected[:, 0])
        np.testing.assert_array_equal(pixels, expected[:, 1:].reshape(-1, 3, 32, 32))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", [".", "{form}", "small/{form}", "small"])
def test_files_are_found_and_read(tmp_path: Path, place: str, form: str) -> None:
    lay_out(tmp_path / place.format(form=form), form)
    require_all(tmp_path)


@pytest.mark.parametrize(
    ("archive", "form"),
    [
        ("cifar-10-binary.tar.gz", "cifar-10-batches-bin"),
        ("small/cifar-10-python.tar.gz", "cifar-10-batches-py"),
    ],
)
def test_archives_are_read_without_unpacking(tmp_path: Path, archive: str, form: str) -> None:
    pack(tmp_path / archive, form)
    require_all(tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / archive]


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_batches_pickled_by_python_3(protocol: int) -> None:
    made = BATCHES["test_batch"]
    found = parse_python(python3_batch(made, protocol), what="batch")
    np.testing.assert_array_equal(found, made)


class Hostile:
    """Pickles to a call of a function of the attacker's choice."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def test_pickles_cannot_run_code(tmp_path: Path) -> None:
    target = tmp_path / "written by the pickle"
    made = BATCHES["test_batch"]
    for poison in (
        Hostile(Path.touch, target),
        Hostile(eval, f"open({str(target)!r}, 'w')"),
        Hostile(np.save, str(target), made),
    ):
        table = {"labels": made[:, 0].tolist(), "data": made[:, 1:], "extra": poison}
        content = pickle.dumps(table, protocol=2)
        with pytest.raises(DataError, match="which is refused"):
            read_table(content, what="batch")
        (tmp_path / "test_batch").write_bytes(content)
        with pytest.raises(DataError, match=r"test_batch is not a pickled batch of images"):
            SOURCE("test", tmp_path, False)
        assert [p.name for p in tmp_path.iterdir()] == ["test_batch"]
    assert pickle.loads(pickle.dumps(Hostile(len, "abc"))) == 3, "the attack itself works"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a pickled batch"),
        (batch_pickle(BATCHES["test_batch"])[:-100], "not a pickled batch"),
        (pickle.dumps([1, 2]), "not a pickled batch"),
        (pickle.dumps({"labels": [1]}, protocol=2), "holds no images with labels"),
        (pickle.dumps({"labels": [1], "data": "text"}, protocol=2), "holds no images"),
        (pickle.dumps({"labels": [1], "data": np.zeros((1, 9))}, protocol=2), "unsigned bytes"),
        (
            pickle.dumps({"labels": [1], "data": np.zeros((1, 9), np.uint8)}, protocol=2),
            "holds no images",
        ),
        (python3_batch(BATCHES["data_batch_2"], 2), "is not the original: SHA-256"),
    ],
)
def test_damaged_or_foreign_python_batches(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        SOURCE("test", tmp_path, False)
    assert str(tmp_path / "test_batch") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is truncated: 0 bytes"),
        (BATCHES["test_batch"].tobytes()[:-1], "not a whole number of records"),
        (BATCHES["test_batch"].tobytes()[:RECORD], "is not the original"),
        (BATCHES["test_batch"][::-1].tobytes(), "is not the original"),
    ],
)
def test_damaged_or_foreign_binary_batches(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "test_batch.bin").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        SOURCE("test", tmp_path, False)


def test_one_missing_batch_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, "cifar-10-batches-bin")
    (tmp_path / "data_batch_2.bin").unlink()
    with pytest.raises(DataError, match=r"no data_batch_2\.bin or data_batch_2 in"):
        SOURCE("train", tmp_path, False)


def test_missing_everything_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no cifar-10-batches-bin or cifar-10-binary\.tar\.gz or"):
        SOURCE("test", tmp_path, True)


def test_truncated_and_incomplete_archives(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    pack(path, "cifar-10-batches-bin")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="is truncated or not an archive"):
        SOURCE("test", tmp_path, False)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("cifar-10-batches-bin/readme.html"))
    with pytest.raises(DataError, match="has no test_batch"):
        SOURCE("test", tmp_path, False)


def test_label_out_of_range_is_refused_even_without_a_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from deqcert.data import SOURCES

    made = BATCHES["test_batch"].copy()
    made[1, 0] = 10
    (tmp_path / "test_batch.bin").write_bytes(made.tobytes())
    unchecked = replace(SOURCE, checksums={})
    monkeypatch.setitem(SOURCES, "cifar10", replace(SOURCES["cifar10"], read=unchecked))
    with pytest.raises(DataError, match=r"label values must lie in 0\.\.9, but got 10"):
        load_data("cifar10", folder=tmp_path)


def test_original_files(cifar_folder: Path) -> None:
    test = load_data("cifar10", folder=cifar_folder, download=False)
    assert (len(test), test.input_shape) == (10_000, (3, 32, 32))
    names = [test.class_names[label] for label in test.labels[:4]]
    assert names == ["cat", "ship", "ship", "airplane"]
    train = load_data("cifar10", split="train", folder=cifar_folder, download=False)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    # The channel means everybody standardises with.
    means = train.pixels.mean(axis=(0, 2, 3)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=5e-5)


def test_original_content_in_python_form_is_the_same_data(
    cifar_folder: Path, tmp_path: Path
) -> None:
    binary = cifar_folder / "cifar-10-batches-bin" / "test_batch.bin"
    made = np.frombuffer(binary.read_bytes(), dtype=np.uint8).reshape(-1, RECORD)
    (tmp_path / "test_batch").write_bytes(batch_pickle(made))
    found = load_data("cifar10", folder=tmp_path, download=False)
    assert found.digest == load_data("cifar10", folder=cifar_folder, download=False).digest
