"""Configurations of studies: all of them parse, and none names what does not exist."""

from __future__ import annotations

import re

import pytest
from experiments.published import find_table
from experiments.settings import (
    CERTIFIERS,
    CONFIGS,
    PRESETS,
    Row,
    available,
    options_of,
    read_study,
)

from deqcert.cli_options import read_toml
from deqcert.data.sources import SOURCES
from deqcert.errors import ConfigurationError, UnknownNameError
from deqcert.models import available_models
from deqcert.smoothing import Certifier
from deqcert.smoothing.settings import Settings, default_serial, default_warmup
from deqcert.solvers import SolverSpec
from deqcert.training.config import TrainConfig

STUDIES = [(name, preset) for name in available() for preset in PRESETS]
# Issue by issue: what the paper's tables and studies are, and the comparison.
EXPECTED = {
    *("cifar10-small", "cifar10-large", "cifar10-small-sigma", "cifar10-large-sigma"),
    *("imagenet-small", "smoothadv", "jacobian", "solver", "warmup", "start", "draws", "audit"),
    *("comparison-mnist", "comparison-fashion-mnist"),
}


def smoothing_settings(row: Row) -> Settings:
    """What the certifier would check, without a model."""
    reference = SolverSpec.parse(row.options.get("reference", "anderson:30"))
    start = row.options.get("start", "previous")
    return Settings(
        sigma=row.options["sigma"],
        n0=row.options.get("n0", 100),
        n=row.options.get("n", 10_000),
        alpha=row.options.get("alpha", 0.001),
        method=row.method,
        reference=str(reference),
        serial=row.options.get("serial", default_serial(reference, start)),
        warmup=row.options.get("warmup", default_warmup(reference)),
        start=start,
        chains=row.options.get("chains", 400),
        audit=row.options.get("audit", "auto"),
        dtype=row.options.get("dtype", "float32"),
    )


def test_every_published_table_and_study_has_a_configuration():
    assert set(available()) == EXPECTED


@pytest.mark.parametrize(("name", "preset"), STUDIES)
def test_every_configuration_names_only_what_exists(name: str, preset: str):
    study = read_study(name, preset)
    assert study.data in SOURCES
    assert study.rows
    architectures = {entry.architecture for entry in available_models()}
    for row in study.rows:
        architecture = re.sub(r"-s\d{3}$", "", row.model)
        assert architecture in architectures or row.model in study.train, row.model
        if CERTIFIERS[row.method] is Certifier:
            smoothing_settings(row)
        assert set(row.options) <= options_of(row.method)
    titles = {title for table in study.published for title in find_table(table).rows}
    assert {row.published for row in (*study.rows, *study.claims)} - {None} <= titles


@pytest.mark.parametrize("preset", PRESETS)
def test_rows_that_share_a_run_have_the_same_settings(preset: str):
    shared: dict[str, list] = {}
    for name in available():
        study = read_study(name, preset)
        for row in study.rows:
            if row.shared:
                run = (study.data, study.seed, row.model, smoothing_settings(row), row.skip)
                shared.setdefault(row.shared, []).append((*run, row.limit))
    assert len(shared) == 4
    for name, runs in shared.items():
        assert len(runs) >= 3, name
        assert all(run == runs[0] for run in runs), name


@pytest.mark.parametrize("name", available())
def test_the_full_preset_has_the_published_sizes_and_the_small_one_fifty_images(name: str):
    small, full = (read_study(name, preset) for preset in PRESETS)
    for row in small.rows:
        assert row.untrained or (row.limit is not None and row.limit >= 50)
    for row in full.rows:
        if row.untrained or row.method in ("lipschitz", "interval"):
            continue
        assert row.limit == 500
        assert row.options["alpha"] == 0.001
        assert row.options["n"] in (10_000, 100_000)


@pytest.mark.parametrize("path", sorted((CONFIGS / "train").glob("*.toml")), ids=lambda p: p.stem)
def test_training_settings_exist(path):
    TrainConfig.from_dict({**read_toml(path), "sigma": 0.5})


def test_commands_that_make_weights_put_them_where_rows_look_for_them():
    for name, preset in STUDIES:
        for model, command in read_study(name, preset).train.items():
            assert command.startswith("deqcert train ")
            assert command.endswith(f"--out experiments/weights/{model}")


PLAIN = """
title = "t"
about = "a"
data = "digits"
[defaults]
model = "mdeq-digits-s050"
sigma = 0.5
[small]
limit = 2
[full]
limit = 3
[[rows]]
name = "one"
title = "One"
method = "standard"
n = 100
"""


def write(tmp_path, text: str) -> str:
    (tmp_path / "study.toml").write_text(text)
    return str(tmp_path / "study.toml")


def test_later_settings_win(tmp_path):
    text = PLAIN + 'full = { n = 300 }\n[[rows]]\nname = "two"\ntitle = "Two"\nsigma = 0.25\n'
    path = write(tmp_path, text)
    small, full = read_study(path, "small"), read_study(path, "full")
    assert [row.limit for row in small.rows] == [2, 2]
    assert [row.limit for row in full.rows] == [3, 3]
    assert small.rows[0].options == {"sigma": 0.5, "n": 100}
    assert full.rows[0].options == {"sigma": 0.5, "n": 300}
    assert small.rows[1].options == {"sigma": 0.25}
    assert small.rows[1].method == "srs"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("n = 100", "draws = 100"), "unknown setting of method standard 'draws'"),
        (('method = "standard"', 'method = "standart"'), "did you mean 'standard'"),
        (("sigma = 0.5", "sigmaa = 0.5"), "unknown shared setting 'sigmaa'"),
        (('title = "t"', 'titel = "t"'), "unknown study setting 'titel'"),
        (("n = 100", 'reference = "andersen:3"'), "did you mean 'anderson'"),
        (('name = "one"\n', ""), "name"),
        (('data = "digits"', 'data = "digits"\npairs = [["one", "two"]]'), "unknown row 'two'"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, error):
    assert change[0] in PLAIN
    with pytest.raises((UnknownNameError, ConfigurationError), match=error):
        read_study(write(tmp_path, PLAIN.replace(*change, 1)), "small")


def test_two_rows_of_one_name_and_claims_of_other_methods_are_refused(tmp_path):
    again = PLAIN + PLAIN[PLAIN.index("[[rows]]") :]
    with pytest.raises(ConfigurationError, match="two rows of one name"):
        read_study(write(tmp_path, again), "small")
    claim = '[[claims]]\nname = "c"\ntitle = "C"\nrule = "released-code"\nof = "one"\n'
    with pytest.raises(ConfigurationError, match="needs a row of method srs-paper"):
        read_study(write(tmp_path, PLAIN + claim), "small")


def test_unknown_studies_and_presets_are_named():
    with pytest.raises(UnknownNameError, match="cifar10-small"):
        read_study("cifar10-smal", "small")
    with pytest.raises(UnknownNameError, match="preset"):
        read_study("cifar10-small", "medium")
