"""Families of models that a configuration describes in full, so that a checkpoint rebuilds them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deqcert.models.equilibrium import EquilibriumModel
from deqcert.models.mdeq import MDEQ
from deqcert.models.mdeq_config import MDEQConfig
from deqcert.models.mondeq import MonDEQ
from deqcert.models.mondeq_config import MonDEQConfig

Config = MDEQConfig | MonDEQConfig


@dataclass(frozen=True)
class Family:
    """A model class and the class of its configuration."""

    model: Any
    config: Any

    def build(self, settings: Mapping[str, Any]) -> EquilibriumModel:
        """Return a model with these settings and fresh weights."""
        return self.model(self.config.from_dict(settings))


_NO_PART_OF_A_LABEL = ("dropout", "init_std", "solver")  # a run names its solver by itself
FAMILIES = {"mdeq": Family(MDEQ, MDEQConfig), "mondeq": Family(MonDEQ, MonDEQConfig)}


def family_of(model: EquilibriumModel) -> str | None:
    """Return the name of a model's family, or None."""
    return next((name for name, f in FAMILIES.items() if isinstance(model, f.model)), None)


def config_of(model: EquilibriumModel) -> Config:
    """Return the configuration of a model of one of the families."""
    assert isinstance(model, (MDEQ, MonDEQ))
    return model.config


def architecture_of(model: EquilibriumModel) -> dict[str, Any]:
    """Return what decides a model's outputs beside its weights, as plain JSON.

    The name of its class, and of a family all settings but those of training and the default
    solver; of other models no more is known.
    """
    kind = {"class": type(model).__name__}
    if family_of(model) is None:
        return kind
    settings = dataclasses.asdict(config_of(model)).items()
    decisive = {name: value for name, value in settings if name not in _NO_PART_OF_A_LABEL}
    return {**kind, **json.loads(json.dumps(decisive))}


def build_config(config: Config) -> EquilibriumModel:
    """Return the model of a configuration, with fresh weights."""
    return MDEQ(config) if isinstance(config, MDEQConfig) else MonDEQ(config)
