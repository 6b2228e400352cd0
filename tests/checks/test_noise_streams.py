"""Runs under the stream that devices make: checked, attacked and gone on with under their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deqcert.checks import AttackSpec, attack_run, verify
from deqcert.checks.judge import ABSTAINED, FELL, Judge
from deqcert.checks.replay import certifier_of
from deqcert.data import load_data
from deqcert.errors import RunFolderError
from deqcert.results import RunFolder
from deqcert.runners import certify_dataset
from deqcert.smoothing import NOISE_STREAM, Certifier
from deqcert.smoothing.streams import DEVICE_STREAM
from tests.checks.runs import METHODS, SEED, SKIP, Forgery, MeansDEQ

SETTINGS = {"sigma": 0.25, "n0": 40, "n": 240, "chains": 24, "serial": "picard:1"}


def certifier(method: str, stream: str | None = DEVICE_STREAM) -> Certifier:
    return Certifier(MeansDEQ(), **SETTINGS, **METHODS[method], noise_stream=stream)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for method in METHODS:
        found[method] = folder / method
        certify_dataset(
            certifier(method), load_data("digits"), out=found[method], skip=SKIP, seed=SEED
        )
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_run_says_its_stream_and_replays_to_the_bit(runs: dict[str, Path], method: str):
    run = RunFolder.open(runs[method])
    assert run.configuration["noise"] == DEVICE_STREAM
    assert {record["noise"] for record in run.records()} == {DEVICE_STREAM}
    found = verify(runs[method], model=MeansDEQ(), replays=10)
    assert found.clean, found.problems
    assert len(found.replayed) == 10
    assert found.notes == ()
    drawn = verify(runs[method], model=MeansDEQ(), draws=240, seed=0)
    assert drawn.clean, drawn.problems
    assert len(drawn.draw_checks) == 10


@pytest.mark.parametrize("name", [NOISE_STREAM, "torch-philox4x32-boxmuller-float32-v0"])
def test_another_stream_in_the_folder_is_found(runs: dict[str, Path], tmp_path: Path, name: str):
    forged = Forgery.of(runs["standard"], tmp_path / "run")
    forged.content["configuration"]["noise"] = name
    for record in forged.records:
        record["noise"] = name
    forged.save()
    known = name == NOISE_STREAM
    static = verify(tmp_path / "run", model=MeansDEQ())
    fields = {problem.field for problem in static.problems}
    assert static.clean if known else "configuration.noise" in fields
    found = verify(tmp_path / "run", model=MeansDEQ(), indices=[40])
    if known:
        assert "counts" in {problem.field for problem in found.problems}
    else:
        assert found.replayed == ()
        assert "nothing was replayed" in " ".join(found.notes)


@pytest.mark.parametrize(("stream", "other"), [(DEVICE_STREAM, None), (None, DEVICE_STREAM)])
def test_a_run_is_not_gone_on_with_under_another_stream(
    tmp_path: Path, stream: str | None, other: str | None
):
    data, out = load_data("digits"), tmp_path / "run"
    certify_dataset(certifier("standard", stream), data, out=out, limit=2, seed=SEED)
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}
    with pytest.raises(RunFolderError) as refused:
        certify_dataset(certifier("standard", other), data, out=out, limit=3)
    one, two = stream or NOISE_STREAM, other or NOISE_STREAM
    assert f"(noise {one!r} there, {two!r} now)" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()} == before
    run = certify_dataset(certifier("standard", one), data, out=out, limit=3)
    whole = certify_dataset(
        certifier("standard", one), data, out=tmp_path / "whole", limit=3, seed=SEED
    )
    timeless = [[{**r, "seconds": 0} for r in folder.records()] for folder in (run, whole)]
    assert timeless[0] == timeless[1]


def test_attacks_and_their_judge_use_the_stream_of_the_run(runs: dict[str, Path], tmp_path: Path):
    spec = AttackSpec(distances=(1.0, 4.0), steps=5, samples=8, n=300)
    found = attack_run(
        runs["standard"], model=MeansDEQ(), spec=spec, limit=2, out=tmp_path / "attack", seed=0
    )
    header = json.loads((tmp_path / "attack" / "attack.json").read_text())
    assert header["run"]["noise"] == DEVICE_STREAM
    assert found.fallen_inside == ()
    assert len(found.images) == 2

    configuration = RunFolder.open(runs["standard"]).configuration
    subject = certifier_of(configuration, MeansDEQ(), device="cpu", batch_size=None)
    judge = Judge(certifier=subject, n=300, alpha=0.001, seed=4)
    for index in (0, 11, 40):
        image = load_data("digits")[index].image
        verdict = judge.verdict(image, index, certified=10)
        label = subject.predict(image, n=300, alpha=0.001, seed=4, index=index)
        assert (verdict.label, verdict.outcome) == (label, ABSTAINED if label is None else FELL)
        assert subject.noise(4, index).stream.name == DEVICE_STREAM
