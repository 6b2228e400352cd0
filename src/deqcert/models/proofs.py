"""Labels at the exact equilibrium, proved from any state whatever (THEORY 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from deqcert.models.linear_maps import UNIT
from deqcert.models.mondeq_exact import Head, Operator, row_norms
from deqcert.solvers import State
from deqcert.solvers.splitting import Step, forward_backward

UNPROVED = -1
"""Label of a row whose label is not proved."""


@dataclass(frozen=True)
class Proof:
    """What one look at a batch of states has shown.

    Attributes:
        label: Class at the exact equilibrium, `UNPROVED` where that is open. shape: (B,), int64
        room: How far the equilibrium may still move (L2) before its label could change; the label
            is proved where it is above 0. shape: (B,), float64
        distance: Upper bound of the L2 distance of `point` to the equilibrium. (B,), float64
        point: The state the proof looks at, one step nearer than the given one. float64
        state: Where a solve should go on: the next iterate, built like the given state.
    """

    label: Tensor
    room: Tensor
    distance: Tensor
    point: Tensor
    state: State


@runtime_checkable
class ProvesLabels(Protocol):
    """A model that can prove what its label at the exact equilibrium is."""

    def proof_facts(self) -> dict[str, Any]:
        """Return what the proofs rest on (constants, norms, the slack rule), for a record."""
        ...

    def prove(self, state: Any, injection: Any) -> Proof:
        """Look at states, at the cost of one cell evaluation, which is also a step onwards."""
        ...

    def proved_labels(self, state: Any, injection: Any) -> Tensor:
        """Return `prove(state, injection).label`. shape: (B,), int64"""
        ...


class EquilibriumProof:
    """Bounds on the distance to the equilibrium of 0 in F(z) - b + N(z), and what follows.

    For any z >= 0 let q = F(z) - b, and e = q where z > 0, min(q, 0) where z = 0. Then z is the
    exact equilibrium of the bias b + e, since -(q - e) lies in the normal cone at z, and the
    equilibrium is 1/m-Lipschitz in the bias: ||z - z*|| <= ||e|| / m. This is THEORY 4.1 with the
    smallest residual that fits z; that of 4.1, W r at y, is another and no smaller. The
    forward-backward step from z, which needs no more than q, is nearer by the rate of the step.

    Everything is evaluated in float64 with proved bounds of its rounding, so the claims are about
    the exact equilibrium of the exact real model.

    Args:
        operator: F.
        head: The logits.
    """

    def __init__(self, operator: Operator, head: Head) -> None:
        self.operator = operator
        self.head = head
        self.step: Step = operator.exact_step()

    def advance(
        self,
        z: Tensor,  # (B, ...)
        bias: Tensor,  # (B, ...)
        slack: Tensor,  # (B,): upper bound of the distance of `bias` to the exact one
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next point, an upper bound of its distance to the equilibrium, and F(z) - b.

        All float64.
        """
        z, bias = torch.relu(z.detach().double()), bias.detach().double()
        applied = self.operator.apply(z)
        q = applied - bias
        size_z, size_q = row_norms(z), row_norms(q)
        # How far the computed q may be from the exact one, 2-norm.
        off = self.operator.slip * size_z + 4 * UNIT * (row_norms(applied) + row_norms(bias))
        off = off + slack.double()
        e = torch.where(z > 0, q, q.clamp_max(0.0))
        before = (row_norms(e) + off) / self.operator.m
        point = forward_backward(z, q, self.step.size)
        moved = self.step.size * off + 4 * UNIT * (size_z + self.step.size * size_q)
        distance = (self.step.rate * before + moved) * (1.0 + 16 * UNIT)
        return point, distance, q

    def room(
        self,
        point: Tensor,  # (B, ...) float64
        distance: Tensor,  # (B,)
    ) -> tuple[Tensor, Tensor]:  # (B,) int64, (B,) float64
        """Return the leading class at `point` and how far the equilibrium is from losing it.

        The equilibrium keeps its class under any move shorter than the second value; where that is
        not above 0, the class is not proved.
        """
        logits, error = self.head.logits(point)
        top = logits.argmax(dim=1)
        leads = logits.gather(1, top[:, None]) - logits
        leads = leads * (1.0 - 4 * UNIT) - 2.0 * error[:, None]
        apart = self.head.differences.to(point.device)[top]
        # Equal rows of the head: the lead is a constant of the model.
        reach = leads / apart.clamp_min(torch.finfo(torch.float64).tiny)
        reach = reach.scatter(1, top[:, None], torch.inf)
        return top, reach.amin(dim=1) * (1.0 - 4 * UNIT) - distance * (1.0 + 4 * UNIT)

    def facts(self) -> dict[str, Any]:
        """Return what proofs rest on, as JSON can hold it."""
        return {
            "m": self.operator.m,
            "operator_norm": self.operator.lipschitz,
            "step": self.step.size,
            "rate": self.step.rate,
            "head_norm": float(self.head.differences.max()),
            "precision": "float64",
            "slack": "gamma_k bounds of every float64 sum, operator and injection included",
            "operator_slip": self.operator.slip,
            "cell_evaluations": 1,
        }
