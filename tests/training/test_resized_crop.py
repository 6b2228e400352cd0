"""Random resized crops: torchvision's rule, keyed, the same after any interruption."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn

from deqcert.data import FolderDataset, load_data
from deqcert.errors import ConfigurationError, TrainingPaused, UnknownNameError
from deqcert.models import EquilibriumModel, load_model, weights_digest
from deqcert.solvers import State
from deqcert.training import AugmentSpec, ResizedCrop, TrainConfig, TrainResult, train
from deqcert.training.recipes import RECIPES
from deqcert.training.resized_crop import choose_box, keyed_boxes
from tests.data.test_imagenet import lay_out, load


def boxes(spec: ResizedCrop, width: int, height: int, count: int = 2000) -> np.ndarray:
    generator = np.random.default_rng(5)
    found = [choose_box(spec, generator, width=width, height=height) for _ in range(count)]
    return np.array(found)  # (count, 4)


def test_areas_shapes_and_places_are_drawn_as_they_should():
    """Areas of at most half of a square: the first try always fits, so nothing is selected."""
    spec = ResizedCrop(area=(0.1, 0.5), aspect=(3 / 4, 4 / 3))
    left, top, right, bottom = boxes(spec, 4000, 4000).T
    wide, tall = right - left, bottom - top
    areas = (wide * tall / 4000**2 - 0.1) / 0.4
    shapes = (np.log(wide / tall) - math.log(3 / 4)) / math.log(16 / 9)
    across, down = left / (4000 - wide), top / (4000 - tall)
    for found in (areas, shapes, across, down):
        assert found.min() > -1e-3
        assert found.max() < 1 + 1e-3
        assert kstest(found, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(areas, shapes)[0, 1]) < 0.1
    assert abs(np.corrcoef(across, down)[0, 1]) < 0.1


def test_large_windows_that_do_not_fit_are_drawn_again():
    """Given that it fits, an area has the density of the shapes that fit at it: here by counting.

    In a square, area a and shape s fit where a s <= 1 and a / s <= 1.
    """
    left, top, right, bottom = boxes(ResizedCrop(), 3000, 3000, count=8000).T
    areas = (right - left) * (bottom - top) / 3000**2
    grid = np.linspace(0.08, 1.0, 20_001)
    fits = np.clip(-np.log(grid) / math.log(4 / 3), 0.0, 1.0)  # share of log-uniform shapes
    share = np.cumsum(fits) / fits.sum()
    assert kstest(areas, lambda x: np.interp(x, grid, share)).pvalue > 0.01


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (224, 224), (64, 3), (1, 1)])
def test_windows_lie_within_the_image(width, height):
    left, top, right, bottom = boxes(ResizedCrop(), width, height, count=500).T
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() <= width
    assert bottom.max() <= height
    assert (right - left).min() >= 1
    assert (bottom - top).min() >= 1
    assert (left.max() > 0) == (width > 1), "not all from one corner"


@pytest.mark.parametrize(
    ("spec", "size", "expected"),
    [
        (ResizedCrop(), (1000, 10), (493, 0, 506, 10)),  # too wide: 4/3 of the height
        (ResizedCrop(), (10, 1000), (0, 493, 10, 506)),  # too tall: 4/3 of the width
        (ResizedCrop(area=(1, 1), aspect=(1, 1)), (30, 40), (0, 5, 30, 35)),
        (ResizedCrop(area=(1, 1), aspect=(0.1, 0.2)), (30, 40), (11, 0, 19, 40)),
        (ResizedCrop(), (1, 1000), (0, 499, 1, 500)),
        (ResizedCrop(area=(0.08, 0.1)), (1, 1), (0, 0, 1, 1)),  # a window of no pixels at all
    ],
)
def test_what_never_fits_becomes_the_largest_window_in_the_centre(spec, size, expected):
    assert {tuple(box) for box in boxes(spec, *size, count=20)} == {expected}


def test_an_allowed_shape_of_which_no_try_fits_is_taken_whole():
    spec = ResizedCrop(area=(1, 1), aspect=(0.01, 100))
    found = {tuple(box) for box in boxes(spec, 300, 400, count=20)}
    assert (0, 0, 300, 400) in found
    assert len(found) <= 2  # a try fits only where it is the whole up to rounding


def test_windows_are_keyed_by_seed_epoch_and_image():
    spec = ResizedCrop()
    usual = [keyed_boxes(spec, seed=0, epoch=2)(index, 500, 375) for index in range(20)]
    again = keyed_boxes(spec, seed=0, epoch=2)
    assert [again(index, 500, 375) for index in reversed(range(20))] == usual[::-1]
    assert len(set(usual)) == 20
    for seed, epoch in ((1, 2), (0, 3)):
        other = keyed_boxes(spec, seed=seed, epoch=epoch)
        assert all(other(index, 500, 375) != usual[index] for index in range(20))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"area": (0.0, 1.0)}, r"area must lie in \(0, 1\], but got 0.0"),
        ({"area": (0.5, 1.5)}, "area must lie"),
        ({"area": (0.5, 0.1)}, "area must not fall from 0.5 to 0.1"),
        ({"area": 0.5}, "area must be two numbers"),
        ({"area": (0.1, 0.2, 0.3)}, "area must be two numbers"),
        ({"area": (0.1, "x")}, "area must lie"),
        ({"aspect": (-1.0, 1.0)}, "aspect must lie"),
        ({"aspect": (1.0, math.inf)}, "aspect must lie"),
        ({"aspect": (2.0, 1.0)}, "aspect must not fall"),
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, Any], rule: str):
    with pytest.raises(ConfigurationError, match=f"resized_crop {rule}"):
        ResizedCrop(**change)


def test_settings_from_a_file():
    table = {"augment": {"flip": True, "resized_crop": {"area": [0.25, 1]}}, "sigma": 0.5}
    config = TrainConfig.from_dict(table)
    assert config.augment == AugmentSpec(flip=True, resized_crop=ResizedCrop(area=(0.25, 1)))
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    table["augment"]["resized_crop"] = {"areas": [0.25, 1]}
    with pytest.raises(UnknownNameError, match=r"augment\.resized_crop\.areas"):
        TrainConfig.from_dict(table)
    table["augment"]["resized_crop"] = 0.25
    with pytest.raises(ConfigurationError, match="must be a table with area and aspect"):
        TrainConfig.from_dict(table)


def test_posteriors_of_crops_are_refused():
    table = {"augment": {"resized_crop": {}}, "posterior": {}, "sigma": 0.5}
    with pytest.raises(ConfigurationError, match=r"leave out posterior or augment\.resized_crop"):
        TrainConfig.from_dict(table)


def test_the_published_imagenet_recipe_takes_them():
    config = RECIPES["published-imagenet"].config(sigma=1.0)
    assert config.augment is not None
    assert config.augment == AugmentSpec.crop_and_flip(ResizedCrop())
    assert config.augment.resized_crop == ResizedCrop(area=(0.08, 1.0), aspect=(3 / 4, 4 / 3))
    assert (config.augment.flip, config.augment.crop, config.augment.rotate) == (True, 0, 0.0)


class Pooled(EquilibriumModel):
    """A DEQ of 12 numbers, the means of a quarter of the image each."""

    def __init__(self) -> None:
        super().__init__(num_classes=3, input_shape=(3, 32, 32), solver="picard:3")
        torch.manual_seed(0)
        self.mix, self.head = nn.Linear(12, 12), nn.Linear(12, 3)

    def inject(self, x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x, 16).flatten(1)

    def initial_state(self, injection: Any) -> State:
        return torch.zeros_like(injection)

    def cell(self, state: State, injection: Any) -> State:
        assert isinstance(state, Tensor)
        return torch.tanh(0.3 * self.mix(state)) + injection

    def classify(self, state: State) -> Tensor:
        assert isinstance(state, Tensor)
        return self.head(state)


CROPS = AugmentSpec.crop_and_flip(ResizedCrop())
CONFIG = TrainConfig(
    sigma=0.25,
    epochs=3,
    batch_size=4,
    augment=CROPS,
    validation_share=0.0,
    validation_copies=1,
    card_copies=1,
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> FolderDataset:
    folder = lay_out(tmp_path_factory.mktemp("photographs") / "train", each=4)
    return dataclasses.replace(load(folder, "train"), resize=36, crop=32)


@pytest.fixture(scope="module")
def uninterrupted(
    photographs: FolderDataset, tmp_path_factory: pytest.TempPathFactory
) -> TrainResult:
    return train(Pooled(), photographs, out=tmp_path_factory.mktemp("run"), config=CONFIG)


def test_a_training_in_slices_gives_the_weights_of_a_whole_one(
    tmp_path, photographs, uninterrupted
):
    threaded = dataclasses.replace(photographs, workers=3)
    for _ in range(4):  # of three steps an epoch, so that slices end within epochs
        with pytest.raises(TrainingPaused):
            train(Pooled(), threaded, out=tmp_path, config=CONFIG, pause_after=1e-9)
    resumed = train(Pooled(), photographs, out=tmp_path, config=CONFIG)
    assert weights_digest(resumed.model) == weights_digest(uninterrupted.model)
    losses = [[line["loss"] for line in result.log] for result in (resumed, uninterrupted)]
    assert losses[0] == losses[1]


def test_the_crops_reach_the_weights(tmp_path, photographs, uninterrupted):
    plain = dataclasses.replace(CONFIG, augment=AugmentSpec.crop_and_flip(0))
    centre = train(Pooled(), photographs, out=tmp_path, config=plain)
    assert weights_digest(centre.model) != weights_digest(uninterrupted.model)


def test_data_without_originals_are_refused_before_anything_is_written(tmp_path):
    data = load_data("digits", split="train")
    with pytest.raises(ConfigurationError, match="digits keeps 8 x 8 pixels alone"):
        train("mdeq-digits", data, out=tmp_path / "run", config=CONFIG)
    assert not (tmp_path / "run").exists()


def test_a_named_architecture_takes_the_classes_of_the_data(tmp_path, photographs):
    """A selection of ImageNet's classes needs no architecture of its own."""
    settings = {"channels": (4, 4), "head_channels": (4, 4), "expansion": 1, "groups": 1}
    config = dataclasses.replace(CONFIG, epochs=1)
    found = train(
        "mdeq-small", photographs, out=tmp_path / "a", config=config, model_settings=settings
    )
    assert load_model(found.path).num_classes == 3
    assert found.card["model"]["settings"]["num_classes"] == 3
    with pytest.raises(ConfigurationError, match="takes classes: 4, but imagenet has 3"):
        train(
            "mdeq-small",
            photographs,
            out=tmp_path / "b",
            config=config,
            model_settings={**settings, "num_classes": 4},
        )


def test_folders_of_runs_from_before_there_were_resized_crops_go_on(tmp_path, photographs):
    config = dataclasses.replace(CONFIG, epochs=1, augment=AugmentSpec.crop_and_flip(2))
    first = train(Pooled(), photographs, out=tmp_path, config=config)
    file = tmp_path / "training.json"
    settings = json.loads(file.read_text())
    del settings["config"]["augment"]["resized_crop"]
    file.write_text(json.dumps(settings))
    assert train(Pooled(), photographs, out=tmp_path, config=config).card == first.card
