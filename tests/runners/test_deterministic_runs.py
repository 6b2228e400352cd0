"""Deterministic certificates in ordinary run folders: complete, resumable, never mixed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deqcert.checks import attack_run, verify
from deqcert.data import load_data
from deqcert.deterministic import LipschitzCertifier
from deqcert.errors import ConfigurationError, RunFolderError
from deqcert.models import MonDEQ, load_model, weights_digest
from deqcert.results import RunFolder
from deqcert.results.cohen import HEADER, cohen_row
from deqcert.runners import Watch, certify_dataset
from deqcert.runners.environment import CHANGED, model_facts, package_commit
from deqcert.smoothing import Certifier
from tests.checks.runs import (
    SKIP,
    deterministic_certifier,
    make_deterministic_run,
    monotone_model,
)

METHODS = ("lipschitz", "interval")


def timeless(folder: Path) -> list[dict]:
    return [{**record, "seconds": 0} for record in RunFolder.open(folder).records()]


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {method: make_deterministic_run(folder / method, method) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_an_ordinary_folder(runs, digits, method: str):
    run = RunFolder.open(runs[method])
    records = list(run.records())
    assert [r["index"] for r in records] == list(range(0, len(digits), SKIP))
    norm = "L2" if method == "lipschitz" else "Linf"
    for record in records:
        assert record["label"] == digits[record["index"]].label
        assert record["correct"] == (record["prediction"] == record["label"])
        assert record["status"] == ("abstained" if record["prediction"] is None else "certified")
        assert (record["guarantee"], record["norm"]) == ("deterministic", norm)
    assert sum(r["correct"] and r["radius"] > 0 for r in records) >= 6
    table = (runs[method] / "cohen.tsv").read_text().splitlines()
    assert table == [HEADER, *map(cohen_row, records)]


@pytest.mark.parametrize("method", METHODS)
def test_run_json_says_what_was_run(runs, digits, method: str):
    content = json.loads((runs[method] / "run.json").read_text())
    certifier = deterministic_certifier(method)
    assert content["configuration"] == {
        **certifier.configuration,
        "data": "digits",
        "split": "test",
        "data_digest": digits.digest,
        "class_names": list(digits.class_names),
        "skip": SKIP,
    }
    (environment,) = content["environments"]
    assert environment["architecture"] == "mondeq"
    assert environment["model"] is None  # weights that nobody has named
    assert environment["batch_size"] == 64
    assert environment["device"] == "cpu"


@pytest.mark.parametrize("method", METHODS)
def test_stopped_within_a_batch_and_resumed_equals_uninterrupted(
    runs, digits, tmp_path: Path, method: str
):
    seen: list[int] = []

    def stop(record) -> None:
        seen.append(record["index"])
        # What was told is on disk already.
        assert len(RunFolder.open(tmp_path).done) == len(seen)
        if len(seen) == 6:
            raise KeyboardInterrupt

    certifier = deterministic_certifier(method, batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(certifier, digits, out=tmp_path, skip=SKIP, watch=Watch(finished=stop))
    assert len(RunFolder.open(tmp_path).done) == 6
    with open(tmp_path / "records.jsonl", "ab") as file:
        file.write(b'{"prediction": 3, "rad')  # what a kill within a write would leave
    certify_dataset(deterministic_certifier(method), digits, out=tmp_path, skip=SKIP)
    assert timeless(tmp_path) == timeless(runs[method])


def test_other_settings_and_other_methods_are_refused(runs, digits, tmp_path: Path):
    before = (runs["interval"] / "records.jsonl").read_bytes()
    for changed in (
        deterministic_certifier("interval", steps=31),
        deterministic_certifier("interval", within_pixels=False),
        deterministic_certifier("lipschitz"),
        Certifier(monotone_model(), sigma=0.5, n=100, method="standard"),
    ):
        with pytest.raises(RunFolderError, match="another configuration"):
            certify_dataset(changed, digits, out=runs["interval"], skip=SKIP)
    assert (runs["interval"] / "records.jsonl").read_bytes() == before
    with pytest.raises(ConfigurationError, match="no seed"):
        certify_dataset(deterministic_certifier("lipschitz"), digits, out=tmp_path / "x", seed=1)
    assert not (tmp_path / "x").exists()


def test_the_same_weights_standardised_otherwise_are_another_model(runs, digits, tmp_path: Path):
    own = monotone_model()
    other = MonDEQ(own.config.replace(mean=(0.1,)))
    other.load_state_dict(own.state_dict())
    assert weights_digest(other) == weights_digest(own)
    settings = {"sigma": 0.5, "n": 100, "n0": 20, "method": "standard"}
    certify_dataset(Certifier(own, **settings), digits, out=tmp_path, skip=SKIP, limit=1, seed=0)
    found = verify(tmp_path, model=other, data=digits, replays=1)
    assert [problem.field for problem in found.problems] == ["configuration.architecture.mean"]
    assert verify(tmp_path, model=own, data=digits, replays=1).clean
    with pytest.raises(
        ConfigurationError, match=r"another model: its architecture\.mean is \[0\.0\]"
    ):
        attack_run(tmp_path, model=other, data=digits)
    with pytest.raises(RunFolderError, match=r"architecture\.mean \[0\.0\] there, \[0\.1\] now"):
        certify_dataset(Certifier(other, **settings), digits, out=tmp_path, skip=SKIP)
    certifier = LipschitzCertifier(other)
    with pytest.raises(RunFolderError, match=r"architecture\.mean"):
        certify_dataset(certifier, digits, out=runs["lipschitz"], skip=SKIP)


def test_a_run_from_before_architectures_were_recorded_still_verifies(digits, tmp_path: Path):
    own = monotone_model()
    certifier = Certifier(own, sigma=0.5, n=100, n0=20, method="standard")
    certify_dataset(certifier, digits, out=tmp_path, skip=SKIP, limit=1, seed=0)
    content = json.loads((tmp_path / "run.json").read_text())
    del content["configuration"]["architecture"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    found = verify(tmp_path, model=own, data=digits, replays=1)
    assert found.clean
    assert any("no architecture" in note for note in found.notes)
    with pytest.raises(RunFolderError, match="begun by a version that did not record"):
        certify_dataset(certifier, digits, out=tmp_path, skip=SKIP, limit=2)


def test_models_are_named_by_their_digest():
    model = load_model("mondeq-fc-s050")
    named = {"model": "mondeq-fc-s050", "architecture": "mondeq"}
    assert model_facts(model, weights_digest(model)) == named
    own = monotone_model()
    own.card = {"weights": weights_digest(own), "model": {"name": "mondeq-fc"}}
    assert model_facts(own, weights_digest(own))["model"] == "mondeq-fc"
    own.card = {**own.card, "weights": "0" * 64}  # a card of other weights says nothing
    assert model_facts(own, weights_digest(own))["model"] is None


def test_the_commit_is_that_of_the_checkout():
    found = package_commit()
    if not (Path(__file__).parents[2] / ".git").exists():
        assert found is None
        return
    assert found is not None
    assert len(found.removesuffix(CHANGED)) == 40
