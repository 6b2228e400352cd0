"""Picard iteration: apply the cell, damped if asked."""

from __future__ import annotations

import torch
from torch import Tensor

from deqcert.solvers.spec import SolverSpec


class Picard:
    """z_{k+1} = z_k + mixing (f(z_k) - z_k); keeps no history."""

    takes = "tensors"

    def __init__(self, spec: SolverSpec) -> None:
        self.mixing = spec.mixing

    @staticmethod
    def bytes_per_row(spec: SolverSpec, features: int, itemsize: int) -> int:
        """Return 0: there is no history."""
        del spec, features, itemsize
        return 0

    def init(self, rows: int, features: int, like: Tensor) -> None:
        """Return the memory of a fresh solve: none."""
        del rows, features, like

    def step(
        self,
        memory: None,
        z: Tensor,  # shape: (B, ...)
        fz: Tensor,  # shape: (B, ...)
    ) -> Tensor:  # shape: (B, ...)
        """Return the next iterate."""
        del memory
        return fz if self.mixing == 1 else torch.lerp(z, fz, self.mixing)

    def select(self, memory: None, rows: Tensor) -> None:
        """Return the memory of the given rows: none."""
        del memory, rows
