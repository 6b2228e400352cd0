"""Monotone operator equilibrium models (Winston, Kolter 2020; Wei, Kolter 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deqcert.errors import ConfigurationError
from deqcert.models.equilibrium import EquilibriumModel
from deqcert.models.hub import HubModel
from deqcert.models.implicit import GradientSpec
from deqcert.models.mondeq_config import MonDEQConfig
from deqcert.models.mondeq_layers import (
    BiasSource,
    FoldedOperator,
    LinearHead,
    make_operator,
)
from deqcert.models.proofs import UNPROVED, EquilibriumProof, Proof
from deqcert.solvers import SolverSpec
from deqcert.solvers.splitting import forward_backward, peaceman_rachford

MonDEQInjection = tuple[Tensor, Tensor | None, float]
"""The bias u(x); in an inference copy, a bound of its rounding error per row; the step size."""


class MonDEQ(HubModel, EquilibriumModel):
    """z* = relu(W z* + U x + b) with I - W >= m I: one equilibrium, found by splitting.

    A cell evaluation is one step of the configured splitting, its size chosen from the operator;
    all its solvers share the fixed point. The state of a Peaceman-Rachford model is the point
    before projection, z = relu(state). Inference copies prove labels (`ProvesLabels`).

    Args:
        config: Its configuration.
        gradient: How gradients are taken at the fixed point; None means implicit, which suits a
            contraction.
    """

    def __init__(self, config: MonDEQConfig, *, gradient: GradientSpec | None = None) -> None:
        if gradient is None:
            gradient = GradientSpec(solver=SolverSpec.parse("picard:100:1e-6"))
        super().__init__(
            num_classes=config.num_classes,
            input_shape=config.input_shape,
            solver=config.solver,
            gradient=gradient,
        )
        self.config = config
        self.source = BiasSource(config)
        self.operator = make_operator(config)
        self.head = LinearHead(config)
        self._proof: EquilibriumProof | None = None

    def inject(self, x: Tensor) -> MonDEQInjection:  # (batch, C, H, W), pixels in [0, 1]
        """Return the bias, its error bound in an inference copy, and the step size."""
        bias, slack = self.source(x)
        return bias, slack, self.operator.step_size()

    def initial_state(self, injection: MonDEQInjection) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(injection[0])

    def cell(self, state: Tensor, injection: MonDEQInjection) -> Tensor:
        """Return the state after one splitting step."""
        bias, _, size = injection
        if self._reflects:
            return peaceman_rachford(state, bias, self.operator.resolvent(size), size)
        return forward_backward(state, self.operator(state) - bias, size)

    def classify(self, state: Tensor) -> Tensor:  # (batch, classes)
        """Return the logits."""
        return self.head(torch.relu(state) if self._reflects else state)

    @property
    def proof(self) -> EquilibriumProof:
        """The bounds that proofs rest on.

        Raises:
            ConfigurationError: Not an inference copy: its weights might still change.
        """
        if not isinstance(self.operator, FoldedOperator):
            raise ConfigurationError("only an inference copy proves labels: take inference_copy()")
        if self._proof is None:
            self._proof = EquilibriumProof(self.operator.exact(), self.head.exact())
        return self._proof

    def proof_facts(self) -> dict[str, Any]:
        """Return what proofs rest on, for a record."""
        return {**self.proof.facts(), "input_norm": self.source.exact().norm}

    @torch.no_grad()
    def prove(self, state: Tensor, injection: MonDEQInjection) -> Proof:
        """Look at states: what is proved of their equilibria, and one step onwards.

        Args:
            state: Any states, however found.
            injection: What `inject` of this very copy returned.
        """
        bias, slack, size = injection
        if slack is None:
            raise ConfigurationError("only an inference copy proves labels: take inference_copy()")
        point, distance, residual = self.proof.advance(state, bias, slack)
        top, room = self.proof.room(point, distance)
        onward = self._state_of(point, state, residual, size) if self._reflects else point
        return Proof(
            label=torch.where(room > 0, top, UNPROVED),
            room=room,
            distance=distance,
            point=point,
            state=onward.to(state.dtype),
        )

    def proved_labels(self, state: Tensor, injection: MonDEQInjection) -> Tensor:  # (batch,)
        """Return the classes that are proved, `UNPROVED` elsewhere."""
        return self.prove(state, injection).label

    def _state_of(self, point: Tensor, state: Tensor, residual: Tensor, size: float) -> Tensor:
        """Return the Peaceman-Rachford state that stands for `point`."""
        # u = z - size (F(z) - b) at the equilibrium; where the projection cut, what it cut off is
        # that of a forward-backward step, of another size.
        cut = torch.relu(state.double()) - self.proof.step.size * residual
        return torch.where(point > 0, point, cut * (size / self.proof.step.size))

    @property
    def _reflects(self) -> bool:
        return self.config.splitting == "peaceman-rachford"
