"""The run folder: what it holds, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deqcert.certificate import Certificate
from deqcert.errors import RunFolderError
from deqcert.results import RunFolder, is_run_folder
from tests.results.made import CONFIGURATION, ENVIRONMENT, audited, certificate


def start(folder: Path, **changes: object) -> RunFolder:
    return RunFolder.create_or_resume(folder, {**CONFIGURATION, **changes}, ENVIRONMENT)


def write(folder: Path, count: int = 3) -> None:
    with start(folder) as run:
        for index in range(count):
            run.append(certificate(index), label=0)


def test_record_is_the_certificate_with_label_correct_and_status(tmp_path: Path) -> None:
    first = audited(4, drawn=100, disagreements=1)
    abstention = certificate(7, prediction=None, radius=0.0)
    with start(tmp_path / "run") as run:
        run.append(first, label=0)
        run.append(abstention, label=2)
        run.append(certificate(9), label=1)
    lines = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [Certificate.from_json(record) for record in records[:2]] == [first, abstention]
    outcome = [(r["index"], r["label"], r["correct"], r["status"]) for r in records]
    assert outcome == [
        (4, 0, True, "certified"),
        (7, 2, False, "abstained"),
        (9, 1, False, "certified"),
    ]
    assert list(RunFolder.open(tmp_path / "run").records()) == records


def test_run_json_holds_format_configuration_and_environment(tmp_path: Path) -> None:
    write(tmp_path)
    content = json.loads((tmp_path / "run.json").read_text())
    assert content == {
        "format": 1,
        "configuration": CONFIGURATION,
        "environments": [ENVIRONMENT],
    }


def test_resume_continues_and_keeps_each_environment_once(tmp_path: Path) -> None:
    write(tmp_path)
    for device in ("cpu", "cuda", "cuda"):
        with RunFolder.create_or_resume(
            tmp_path, CONFIGURATION, {**ENVIRONMENT, "device": device}
        ) as run:
            assert run.done == {0, 1, 2}
    assert [e["device"] for e in RunFolder.open(tmp_path).environments] == ["cpu", "cuda"]
    with start(tmp_path) as run:
        run.append(certificate(3), label=0)
    assert [r["index"] for r in RunFolder.open(tmp_path).records()] == [0, 1, 2, 3]


def test_second_record_of_an_image_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with start(tmp_path) as run, pytest.raises(RunFolderError, match="already has a record of"):
        run.append(certificate(1), label=0)
    assert len(list(RunFolder.open(tmp_path).records())) == 3


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_torn_last_line_is_dropped_and_rewritten(tmp_path: Path, kept: int) -> None:
    write(tmp_path)
    path = tmp_path / "records.jsonl"
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: -len(last)] + last[:kept])
    assert RunFolder.open(tmp_path).done == {0, 1}
    assert path.read_bytes() != whole[: -len(last)], "reading must not change the file"
    with start(tmp_path) as run:
        assert run.done == {0, 1}
        assert path.read_bytes() == whole[: -len(last)]
        run.append(certificate(2), label=0)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (b"not json\n", "Expecting value"),
        (b'{"index": 1}\n', "missing prediction"),
        (b"[]\n", "missing prediction"),
        (b"\n", "Expecting value"),
        (b"\xff\xfe\n", "codec"),
    ],
)
def test_damaged_whole_line_is_named(tmp_path: Path, damaged: bytes, reason: str) -> None:
    write(tmp_path)
    path = tmp_path / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    content = lines[0] + damaged + lines[2]
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=rf"records.jsonl, line 2, is damaged: .*{reason}"):
        RunFolder.open(tmp_path)
    with pytest.raises(RunFolderError, match="line 2"):
        start(tmp_path)
    assert path.read_bytes() == content


def test_doubled_record_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[0]]))
    with pytest.raises(RunFolderError, match="line 4, is a second record of image 0"):
        RunFolder.open(tmp_path)


def test_other_configuration_is_refused_with_every_difference(tmp_path: Path) -> None:
    write(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    other = {**CONFIGURATION, "sigma": 0.25, "data": {**CONFIGURATION["data"], "name": "mnist"}}
    other["audit"] = "auto"
    with pytest.raises(RunFolderError) as caught:
        RunFolder.create_or_resume(tmp_path, other, ENVIRONMENT)
    message = str(caught.value)
    assert "data.name 'digits' there, 'mnist' now" in message
    assert "sigma 0.5 there, 0.25 now" in message
    assert "audit '(absent)' there, 'auto' now" in message
    assert "seed" not in message
    assert "\n" not in message
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    start(tmp_path).close()  # the refusal released the lock


def test_tuples_equal_the_lists_they_become(tmp_path: Path) -> None:
    start(tmp_path, indices=(0, 20)).close()
    start(tmp_path, indices=[0, 20]).close()


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(RunFolderError, match=r"not empty and not a run folder \(no run.json\)"):
        start(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_killed_before_run_json_can_start_again(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / "run.json.tmp").write_text('{"form')
    write(tmp_path)
    assert RunFolder.open(tmp_path).done == {0, 1, 2}


def test_second_writer_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    with start(tmp_path):
        with pytest.raises(RunFolderError, match="being written by another process"):
            start(tmp_path)
        assert RunFolder.open(tmp_path).done == set()  # readers are welcome
    start(tmp_path).close()


def test_reading_needs_a_run_folder(tmp_path: Path) -> None:
    assert not is_run_folder(tmp_path)
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunFolderError, match=r"is not a run folder \(no run.json\)"):
            RunFolder.open(path)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "damaged"),
        ('{"format": 1}', "missing 'configuration'"),
        ('{"format": 1, "configuration": [], "environments": []}', "not a table"),
        ('{"format": 2, "configuration": {}, "environments": []}', "has format 2"),
    ],
)
def test_damaged_or_later_run_json_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunFolderError, match=reason):
        RunFolder.open(tmp_path)
    with pytest.raises(RunFolderError, match=reason):
        start(tmp_path)
    assert (tmp_path / "run.json").read_text() == content


def test_a_reader_cannot_append(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(RunFolderError, match="read only"):
        RunFolder.open(tmp_path).append(certificate(5), label=0)


def test_nan_is_not_a_record(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        with pytest.raises(RunFolderError, match="record of image 0"):
            run.append(certificate(0, p_lower=float("nan")), label=0)
        assert run.done == set()
    assert (tmp_path / "records.jsonl").read_bytes() == b""
