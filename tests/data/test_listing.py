"""What ``deqcert data`` says, against what `load_data` then does."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deqcert.cli import app
from deqcert.data import SOURCES, load_data
from deqcert.data.listing import Listed, list_data_sets, where_it_looks
from deqcert.errors import DataError
from tests.data.test_imagenet import lay_out


def listed(folder: Path) -> dict[str, Listed]:
    return {entry.name: entry for entry in list_data_sets(folder)}


def test_empty_folder(tmp_path: Path) -> None:
    found = listed(tmp_path)
    assert set(found) == set(SOURCES)
    assert found["digits"].here == "part of deqcert"
    assert found["mnist"].here == (
        "no, 12 MB to download; looked in mnist/, MNIST/raw/ and the folder itself"
    )
    assert found["imagenet"].here.startswith("no, cannot be downloaded here; looked in imagenet/")
    assert found["cifar10"].images == "32x32 colour, 10 classes: 50,000 train, 10,000 test"
    assert list(tmp_path.iterdir()) == []


def test_what_is_said_to_be_here_loads_and_what_is_not_does_not(tmp_path: Path) -> None:
    lay_out(tmp_path / "imagenet" / "val")
    here = listed(tmp_path)["imagenet"].here
    assert here.startswith("test in imagenet/val/, no train, cannot be downloaded here;")
    assert len(load_data("imagenet", folder=tmp_path)) == 6
    with pytest.raises(DataError):
        load_data("imagenet", split="train", folder=tmp_path)


def test_half_a_split_is_not_here(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b""))
    for number in range(1, 5):
        (tmp_path / f"data_batch_{number}.bin").touch()
    found = listed(tmp_path)
    assert found["mnist"].here.startswith("no, ")
    assert found["cifar10"].here.startswith("no, ")
    (tmp_path / "data_batch_5.bin").touch()
    (tmp_path / "train-labels-idx1-ubyte").touch()
    found = listed(tmp_path)
    assert found["mnist"].here.startswith("train in the folder itself, no test, 12 MB to download")
    assert found["cifar10"].here.startswith("train in the folder itself, no test, 170 MB")


def test_archives_count(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar-10-python.tar.gz").touch()
    name = "cifar10/cifar-10-python.tar.gz"
    assert listed(tmp_path)["cifar10"].here == f"train in {name}, test in {name}"


def test_the_data_folder_and_its_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEQCERT_DATA", str(tmp_path / "set"))
    assert where_it_looks(tmp_path) == f"data folder: {tmp_path} (as given)"
    assert where_it_looks().startswith(f"data folder: {tmp_path / 'set'} (from DEQCERT_DATA;")
    monkeypatch.delenv("DEQCERT_DATA")
    assert "(the default; --data-dir and DEQCERT_DATA go first)" in where_it_looks()


def test_the_command_fits_80_columns(tmp_path: Path) -> None:
    lay_out(tmp_path / "val")
    result = CliRunner().invoke(app, ["data", "--data-dir", str(tmp_path)], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    first, *lines = result.stdout.splitlines()
    assert str(tmp_path) in first
    assert max(map(len, lines)) <= 80
    assert "…" not in result.stdout, "something was cut off"
    for text in (*SOURCES, "test in val/", "licence", "CC BY-SA 3.0", "train 59d621cf376c"):
        assert text in result.stdout


def test_known_digests_of_digits() -> None:
    for split, digest in SOURCES["digits"].digests.items():
        assert load_data("digits", split=split).digest == digest


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_known_digests_and_sizes(name: str, originals: Path, cifar_folder: Path) -> None:
    folder = cifar_folder if name == "cifar10" else originals
    source = SOURCES[name]
    for split, digest in source.digests.items():
        data = load_data(name, split=split, folder=folder, download=False)
        assert data.digest == digest
        assert len(data) == source.sizes[split]
        assert data.input_shape == source.input_shape
