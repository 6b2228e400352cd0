"""Named architectures, and the trained weights that ship with the package."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deqcert.errors import CheckpointError, unknown_name
from deqcert.models.checkpoints import SUFFIX, read_model
from deqcert.models.equilibrium import EquilibriumModel
from deqcert.models.families import FAMILIES, Config, build_config
from deqcert.models.hub import is_hub_id, load_from_hub
from deqcert.models.mdeq_config import MDEQConfig
from deqcert.models.mondeq_config import MonDEQConfig

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the shipped weights, NAME.safetensors beside its card NAME.json."""

_UNSAFE = (".pth", ".pt", ".pkl", ".tar")  # pickles, which run code
DEFAULT_SIGMA_TAG = "s050"
_TAG = re.compile(r"^(?P<architecture>.+)-(?P<tag>s\d{3})$")

_CIFAR10_MEAN, _CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_MNIST_MEAN, _MNIST_STD = (0.1307,), (0.3081,)
_FASHION_MEAN, _FASHION_STD = (0.2860,), (0.3530,)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_MNIST = MDEQConfig(
    input_shape=(1, 28, 28),
    num_classes=10,
    # The stem halves the image: under noise at 0.5 it averages first, and a cell at 14 x 14 costs a
    # quarter of one at 28 x 28. Groups and head as for digits.
    channels=(16, 32),
    expansion=3,
    groups=1,
    stem_strides=(2, 1),
    head="flatten",
    mean=_MNIST_MEAN,
    std=_MNIST_STD,
    solver="picard:3",
)
# The published fully connected monotone DEQ has 40 units, and at m = 20 the Lipschitz constant
# PAPER 5 quotes.
_MONDEQ_FC = MonDEQConfig(
    input_shape=(1, 28, 28),
    num_classes=10,
    width=40,
    m=20.0,
    mean=_MNIST_MEAN,
    std=_MNIST_STD,
    solver="picard:30:1e-6",
)
_MONDEQ_CONV = MonDEQConfig(
    input_shape=(1, 28, 28),
    num_classes=10,
    kind="conv",
    width=16,
    m=4.0,
    pool=4,
    mean=_MNIST_MEAN,
    std=_MNIST_STD,
)
_FASHION: dict[str, Any] = {"mean": _FASHION_MEAN, "std": _FASHION_STD}

ARCHITECTURES: dict[str, Config] = {
    "mdeq-digits": MDEQConfig(
        input_shape=(1, 8, 8),
        num_classes=10,
        channels=(32, 32),
        expansion=2,
        # One group: over two channels of 8x8 pixels, the published eight groups would normalise
        # away how much ink there is where; it costs less, too.
        groups=1,
        head="flatten",
        mean=(0.3,),
        std=(0.4,),
        # Trained for short solves: the fewest Picard steps at which held-out labels have settled.
        solver="picard:3",
    ),
    # The three published configurations (PAPER 4): 0.25, 11.1 and 18.6 million parameters.
    "mdeq-small": MDEQConfig(
        input_shape=(3, 32, 32),
        num_classes=10,
        channels=(8, 16, 32),
        head_channels=(7, 14, 28),
        final_width=200,
        dropout=0.2,
        mean=_CIFAR10_MEAN,
        std=_CIFAR10_STD,
    ),
    "mdeq-large": MDEQConfig(
        input_shape=(3, 32, 32),
        num_classes=10,
        channels=(32, 64, 128, 256),
        head_channels=(14, 28, 56, 112),
        final_width=1680,
        dropout=0.22,
        mean=_CIFAR10_MEAN,
        std=_CIFAR10_STD,
    ),
    "mdeq-small-imagenet": MDEQConfig(
        input_shape=(3, 224, 224),
        num_classes=1000,
        channels=(32, 64, 128, 256),
        head_channels=(28, 56, 112, 224),
        final_width=2048,
        stem_strides=(2, 2),
        dropout=0.02,
        solver="broyden:14",
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    # The first configuration of that name, to which the clean ImageNet weights belong that the MDEQ
    # repository links to (threads 14 and 31 of locuslab/deq).
    "mdeq-small-imagenet-2020": MDEQConfig(
        input_shape=(3, 224, 224),
        num_classes=1000,
        channels=(32, 64, 128, 256),
        head_channels=(24, 48, 96, 192),
        final_width=2048,
        stem_strides=(2, 2),
        fusion_affine=True,
        solver="broyden:26",
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
    "mdeq-mnist": _MNIST,
    "mdeq-fashion": _MNIST.replace(**_FASHION),
    # Monotone DEQs, for MNIST where no other data set is named.
    "mondeq-fc": _MONDEQ_FC,
    "mondeq-fc-fashion": _MONDEQ_FC.replace(**_FASHION),
    "mondeq-conv": _MONDEQ_CONV,
    "mondeq-conv-fashion": _MONDEQ_CONV.replace(**_FASHION),
    "mondeq-ibp": MonDEQConfig(
        input_shape=(1, 28, 28),
        num_classes=10,
        width=100,
        m=0.5,
        constraint="absolute",
        mean=(0.0,),
        std=(1.0,),
    ),
}


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One name that `load_model` understands.

    Attributes:
        name: The name.
        architecture: The architecture behind it.
        pretrained: Whether trained weights ship for this name.
        config: Settings of the architecture.
        card: Facts about the weights (training sigma, accuracies, command); empty without them.
    """

    name: str
    architecture: str
    pretrained: bool
    config: Config
    card: dict[str, Any]


def available_models() -> list[ModelEntry]:
    """Return all architectures, each followed by its shipped weights."""
    entries = []
    for architecture, config in ARCHITECTURES.items():
        shipped = _shipped(architecture)
        entries.append(
            ModelEntry(
                name=architecture,
                architecture=architecture,
                pretrained=f"{architecture}-{DEFAULT_SIGMA_TAG}" in shipped,
                config=config,
                card={},
            )
        )
        entries += [
            ModelEntry(
                name=name,
                architecture=architecture,
                pretrained=True,
                config=config,
                card=_card(name),
            )
            for name in shipped
        ]
    return entries


def build(architecture: str, **changes: Any) -> EquilibriumModel:
    """Return a named architecture with fresh weights.

    Args:
        architecture: A name of `ARCHITECTURES`, or ``mdeq`` or ``mondeq`` for one described in
            full.
        **changes: Settings of its configuration that differ from the named ones.

    Raises:
        UnknownNameError: Unknown architecture or setting.
        ConfigurationError: A setting out of range.
    """
    if architecture in FAMILIES:
        return FAMILIES[architecture].build(changes)
    if architecture not in ARCHITECTURES:
        raise unknown_name("architecture", architecture, [*ARCHITECTURES, *FAMILIES])
    return build_config(ARCHITECTURES[architecture].replace(**changes))


def load_model(name_or_path: str | Path, *, pretrained: bool = True) -> EquilibriumModel:
    """Return a model in eval mode.

    Args:
        name_or_path: A zoo name such as ``mdeq-digits-s050`` (the bare architecture means noise
            level 0.50), a checkpoint folder, a ``.safetensors`` file, or a hub id ``OWNER/NAME``
            where there is no folder of that name.
        pretrained: False builds the named architecture with fresh weights.

    Raises:
        UnknownNameError: No such name.
        CheckpointError: A checkpoint that is missing, damaged, foreign or out of reach, or no
            weights ship for this name.
        MissingHubError: A hub id, and huggingface_hub is not installed.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, str) and is_hub_id(text):
        return load_from_hub(text, pretrained=pretrained)
    if text.endswith(_UNSAFE):
        raise CheckpointError(
            f"{text} is of a format that may run code; import it once (deqcert import-checkpoint, "
            "convert_checkpoint) and load the result"
        )
    if isinstance(name_or_path, Path) or _is_path(text):
        return read_model(Path(text), pretrained=pretrained)
    architecture = _architecture_of(text)
    if not pretrained:
        return build(architecture).eval()
    name = text if text != architecture else f"{architecture}-{DEFAULT_SIGMA_TAG}"
    if name not in _shipped(architecture):
        known = ", ".join(_shipped(architecture)) or "none"
        raise CheckpointError(
            f"no trained weights ship as {name!r} (shipped for {architecture}: {known}); give a "
            "checkpoint, or pretrained=False for fresh weights"
        )
    return read_model(WEIGHTS / f"{name}{SUFFIX}")


def _is_path(text: str) -> bool:
    marked = text.endswith(SUFFIX) or "/" in text or "\\" in text
    return marked or (text != "" and Path(text).is_dir())


def _architecture_of(name: str) -> str:
    """Return the architecture of a zoo name, with or without its noise level."""
    if name in ARCHITECTURES:
        return name
    match = _TAG.match(name)
    if match and match["architecture"] in ARCHITECTURES:
        return match["architecture"]
    raise unknown_name("model", name, [entry.name for entry in available_models()])


def _shipped(architecture: str) -> list[str]:
    names = sorted(path.stem for path in WEIGHTS.glob(f"{architecture}-s[0-9]*{SUFFIX}"))
    return [name for name in names if _architecture_of(name) == architecture]


def _card(name: str) -> dict[str, Any]:
    path = WEIGHTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
