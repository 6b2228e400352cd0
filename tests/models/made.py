"""Small models the tests of this room share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deqcert.models import MDEQ, EquilibriumModel, MDEQConfig, MonDEQ, MonDEQConfig, build

TINY: dict[int, dict[str, Any]] = {
    1: {"channels": (4,), "head": "pool"},
    2: {"channels": (4, 8), "head": "flatten"},
    3: {"channels": (4, 8, 4), "head_channels": (2, 3, 2), "final_width": 6},
}


def tiny_mdeq(resolutions: int, **changes: Any) -> MDEQ:
    """An MDEQ for odd-sized two-colour images, with a head of each kind, weights not tiny."""
    config = {
        "input_shape": (2, 9, 7),
        "num_classes": 3,
        "expansion": 2,
        "groups": 2,
        "init_std": 0.3,
        "mean": (0.4, 0.5),
        "std": (0.25, 0.5),
        **TINY[resolutions],
        **changes,
    }
    return MDEQ(MDEQConfig(**config))


def tiny_mondeq(**changes: Any) -> MonDEQ:
    """A monotone DEQ for odd-sized two-colour images, whose operator is no near-identity."""
    config = {
        "input_shape": (2, 9, 7),
        "num_classes": 3,
        "width": 12,
        "m": 4.0,
        "mean": (0.4, 0.5),
        "std": (0.25, 0.5),
        "solver": "picard:60:1e-6",
        **changes,
    }
    return MonDEQ(MonDEQConfig(**config))


def with_random_weights(name: str) -> EquilibriumModel:
    """An architecture with weights that keep the size of what they are given, in eval mode."""
    torch.manual_seed(0)
    model = build(name)
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    return model.eval()


def use_batch_statistics(model: nn.Module, x: Tensor) -> None:
    """Give every BatchNorm ordinary running statistics and a scale and shift worth folding."""
    generator = torch.Generator().manual_seed(1)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d) and part.affine:
            nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(part.bias, -0.5, 0.5, generator=generator)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(x)
    model.eval()


def make_contractive(model: MDEQ) -> None:
    """Let the injection rule the cell, so that Picard steps settle to rounding.

    At the highest resolution the injection outweighs the block's own branch, and that branch the
    shortcut; everywhere, what comes down from the highest resolution outweighs the rest.
    """
    with torch.no_grad():
        model.stem.layers[-2].norm.bias.add_(2.0)  # no group of channels all cut off by the ReLU
        for i, block in enumerate(model.f.blocks):
            block.norm2.weight.mul_(12.0)
            (block.conv2.weight_g if i == 0 else block.norm3.weight).mul_(0.02)
        for fusion in model.f.fusions:
            for path in list(fusion.paths)[1:]:
                if isinstance(path, nn.Sequential):
                    path[-1].weight.mul_(0.02)


class TanhDEQ(EquilibriumModel):
    """z = tanh(A z + B x), y = C z: smooth and contractive, for derivatives in float64.

    With `pair` the state is a tuple of two tensors of different shapes that feed each other.
    """

    def __init__(self, *, pair: bool = False) -> None:
        super().__init__(num_classes=2, input_shape=(1, 1, 3), solver="picard:80:1e-15")
        generator = torch.Generator().manual_seed(7)
        self.pair = pair
        self.a = _weights(4, 4, generator, 0.15)
        self.b = _weights(4, 3, generator, 0.6)
        self.c = _weights(2, 4, generator, 1.0)

    def inject(self, x: Tensor) -> dict[str, Tensor]:
        return {"top": x.flatten(1) @ self.b.T}

    def initial_state(self, injection: dict[str, Tensor]) -> Any:
        z = torch.zeros_like(injection["top"])
        return (z[:, :1], z[:, 1:].unsqueeze(-1)) if self.pair else z

    def cell(self, state: Any, injection: dict[str, Tensor]) -> Any:
        z = torch.cat([state[0], state[1].squeeze(-1)], dim=1) if self.pair else state
        out = torch.tanh(z @ self.a.T + injection["top"])
        return (out[:, :1], out[:, 1:].unsqueeze(-1)) if self.pair else out

    def classify(self, state: Any) -> Tensor:
        z = torch.cat([state[0], state[1].squeeze(-1)], dim=1) if self.pair else state
        return z @ self.c.T


def _weights(rows: int, columns: int, generator: torch.Generator, size: float) -> nn.Parameter:
    return nn.Parameter(size * torch.randn(rows, columns, generator=generator, dtype=torch.float64))
