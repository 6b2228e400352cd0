"""Deep equilibrium models: the plug-in interface, MDEQ, gradients, checkpoints and the zoo."""

from __future__ import annotations

from deqcert.models.checkpoints import load_weights, save_model, weights_digest
from deqcert.models.equilibrium import EquilibriumModel
from deqcert.models.implicit import GradientSpec, equilibrium, iterates, jacobian_penalty
from deqcert.models.importing import (
    ImportReport,
    convert_checkpoint,
    import_checkpoint,
    public_architectures,
)
from deqcert.models.inference import inference_copy
from deqcert.models.mdeq import MDEQ
from deqcert.models.mdeq_config import MDEQConfig
from deqcert.models.mondeq import MonDEQ
from deqcert.models.mondeq_config import MonDEQConfig
from deqcert.models.proofs import UNPROVED, EquilibriumProof, Proof, ProvesLabels
from deqcert.models.rows import BATCH_SIZES, solve_rows
from deqcert.models.torchdeq import from_torchdeq
from deqcert.models.wrap import from_classifier, from_functions
from deqcert.models.zoo import ARCHITECTURES, ModelEntry, available_models, build, load_model

__all__ = [
    "ARCHITECTURES",
    "BATCH_SIZES",
    "MDEQ",
    "UNPROVED",
    "EquilibriumModel",
    "EquilibriumProof",
    "GradientSpec",
    "ImportReport",
    "MDEQConfig",
    "ModelEntry",
    "MonDEQ",
    "MonDEQConfig",
    "Proof",
    "ProvesLabels",
    "available_models",
    "build",
    "convert_checkpoint",
    "equilibrium",
    "from_classifier",
    "from_functions",
    "from_torchdeq",
    "import_checkpoint",
    "inference_copy",
    "iterates",
    "jacobian_penalty",
    "load_model",
    "load_weights",
    "public_architectures",
    "save_model",
    "solve_rows",
    "weights_digest",
]
