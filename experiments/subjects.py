"""The model of a row, or that there is none: weights that nobody has are no failure of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from deqcert.data import Dataset
from deqcert.models import EquilibriumModel, available_models, load_model
from deqcert.models.families import build_config
from experiments.settings import Row

WEIGHTS = Path(__file__).parent / "weights"
"""Default folder of checkpoints that do not ship, each under its model's name."""


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Where models are looked for: what was named for a row, then the zoo, then a folder.

    Attributes:
        named: Checkpoints by row name.
        folder: Folder of checkpoints, each in a folder or a file of its model's name.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    folder: Path = WEIGHTS

    def find(self, row: Row) -> str | Path | None:
        """Return what `load_model` takes for this row, or None where there are no weights."""
        if row.name in self.named:
            return self.named[row.name]  # asked for: a missing file is then an error
        return find_weights(row.model, self.folder, untrained=row.untrained)

    def load(self, row: Row, data: Dataset) -> EquilibriumModel | None:
        """Return the row's model, or None where there are no weights.

        An untrained one has fresh weights, the same every time, and as many classes as the data.

        Raises:
            CheckpointError: Weights that are there but damaged.
        """
        found = self.find(row)
        if found is None:
            return None
        if not row.untrained:
            return load_model(found)
        config = next(entry.config for entry in available_models() if entry.name == found)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build_config(config.replace(num_classes=data.num_classes)).eval()


def find_weights(name: str, folder: Path, *, untrained: bool = False) -> str | Path | None:
    """Return what `load_model` takes: a zoo name, a path, or what lies in `folder` by this name.

    Without weights of that name, None. `untrained` takes architectures of the zoo as well.
    """
    zoo = {entry.name for entry in available_models() if entry.pretrained or untrained}
    if name in zoo:
        return name
    inside = folder / name
    places = (Path(name), inside, inside.with_name(f"{name}.safetensors"))
    return next((place for place in places if _is_checkpoint(place)), None)


def _is_checkpoint(place: Path) -> bool:
    return place.is_file() or (place / "model.safetensors").is_file()
