"""Families of models that a configuration describes in full, so that a checkpoint rebuilds them."""

from __future__ import annotations

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


FAMILIES = {"mdeq": Family(MDEQ, MDEQConfig), "mondeq": Family(MonDEQ, MonDEQConfig)}


def family_of(model: EquilibriumModel) -> str | None:
    """Return the name of a model's family, or None."""
    return next((name for name, f in FAMILIES.items() if isinstance(model, f.model)), None)


def config_of(model: EquilibriumModel) -> Config:
    """Return the configuration of a model of one of the families."""
    assert isinstance(model, (MDEQ, MonDEQ))
    return model.config


def build_config(config: Config) -> EquilibriumModel:
    """Return the model of a configuration, with fresh weights."""
    return MDEQ(config) if isinstance(config, MDEQConfig) else MonDEQ(config)
