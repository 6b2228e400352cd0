"""Named models."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from deqcert.errors import CheckpointError, UnknownNameError
from deqcert.models import (
    ARCHITECTURES,
    MDEQ,
    available_models,
    build,
    load_model,
    save_model,
    weights_digest,
    zoo,
)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A weights folder with digits models of two noise levels."""
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    for tag, sigma in (("s025", 0.25), ("s050", 0.5)):
        name = f"mdeq-digits-{tag}"
        card = {"sigma": sigma, "accuracy": 0.9}
        save_model(build("mdeq-digits", channels=(8,)), tmp_path / f"{name}.safetensors", card=card)
        (tmp_path / f"{name}.json").write_text(json.dumps(card))
    return tmp_path


def test_names_end_in_the_noise_level_and_bare_ones_mean_one_half(shelf):
    bare, half = load_model("mdeq-digits"), load_model("mdeq-digits-s050")
    quarter = load_model("mdeq-digits-s025")
    assert weights_digest(bare) == weights_digest(half) != weights_digest(quarter)
    assert half.card == {"sigma": 0.5, "accuracy": 0.9}
    assert quarter.card is not None
    assert quarter.card["sigma"] == 0.25
    assert isinstance(half, MDEQ)
    assert half.config.channels == (8,)  # the checkpoint's own, whatever the table says


def test_available_models_tell_what_ships(shelf):
    entries = {entry.name: entry for entry in available_models()}
    assert list(entries)[:3] == ["mdeq-digits", "mdeq-digits-s025", "mdeq-digits-s050"]
    assert set(ARCHITECTURES) <= set(entries)
    assert entries["mdeq-digits-s025"].card == {"sigma": 0.25, "accuracy": 0.9}
    assert entries["mdeq-digits-s025"].pretrained
    assert entries["mdeq-digits"].pretrained
    assert not entries["mdeq-large"].pretrained
    shutil.rmtree(shelf)
    assert not any(entry.pretrained for entry in available_models())


def test_unknown_names_list_near_ones(shelf):
    with pytest.raises(
        UnknownNameError, match="unknown model 'mdeq-digit'; did you mean 'mdeq-dig"
    ):
        load_model("mdeq-digit")
    with pytest.raises(UnknownNameError, match="unknown architecture 'mdeq-lrage'; did you mean"):
        build("mdeq-lrage")
    with pytest.raises(UnknownNameError, match="unknown model ''"):
        load_model("")


def test_files_that_may_run_code_are_not_opened(tmp_path):
    for name in ("model.pth", tmp_path / "checkpoint.pth.tar"):
        with pytest.raises(CheckpointError, match="may run code; import it once"):
            load_model(name)


def test_missing_weights_name_the_shipped_ones(shelf):
    with pytest.raises(
        CheckpointError, match=r"mdeq-digits-s100' \(shipped .*: mdeq-digits-s025, "
    ):
        load_model("mdeq-digits-s100")
    with pytest.raises(
        CheckpointError, match=r"'mdeq-large-s050' \(shipped for mdeq-large: none\)"
    ):
        load_model("mdeq-large")


def test_fresh_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = load_model("mdeq-digits-s100", pretrained=False)
    torch.manual_seed(1)
    second = load_model("mdeq-digits", pretrained=False)
    assert weights_digest(first) == weights_digest(second)
    assert first.card is None
    assert not first.training


def test_every_shipped_checkpoint_loads_and_matches_its_card():
    for entry in available_models():
        if entry.pretrained and entry.name != entry.architecture:
            model = load_model(entry.name)
            assert model.card is not None
            assert model.card["sigma"] == entry.card["sigma"]
            assert f"s{round(100 * entry.card['sigma']):03d}" == entry.name.rsplit("-", 1)[1]
