"""Interval bounds of a monotone DEQ with I - abs(W) >= m I: the doubled system and its proofs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from deqcert.models import MonDEQ
from deqcert.models.linear_maps import UNIT, rounding
from deqcert.models.mondeq_exact import row_norms
from deqcert.solvers.splitting import choose_step, forward_backward


class BoxSystem:
    """lo = relu(W+ lo + W- hi + b_lo), hi = relu(W- lo + W+ hi + b_hi).

    On (lo + hi) / sqrt 2 and (hi - lo) / sqrt 2 its linear part acts as W and as abs(W), so that
    it is as strongly monotone as they are: m, by I - abs(W) >= m I, which implies I - W >= m I.
    The distance of any (lo, hi) >= 0 to its solution is bounded as that of any monotone DEQ
    (`models.proofs.EquilibriumProof`). abs(W) has spectral radius at most 1 - m, so plain iteration
    of this system and of every image's own converges, and keeps each equilibrium between the two.

    Args:
        model: A float64 inference copy with the ``absolute`` constraint.
    """

    def __init__(self, model: MonDEQ) -> None:
        operator = model.proof.operator
        assert operator.whole is not None, "W is one map under this constraint"
        w = operator.whole.plus_identity(-1.0, 1.0)
        self.m = operator.m
        self.source, self.head = model.source.exact(), model.head.exact()
        self.up, self.down = w.mapped("positive"), w.mapped("negative")
        self.spread = self.source.map.mapped("absolute")
        halves = (operator.whole, w.mapped("absolute").plus_identity(-1.0, 1.0))
        self.step = choose_step(
            lambda size: max(half.plus_identity(-size, 1.0).norm for half in halves),
            m=self.m,
            lipschitz=max(half.norm for half in halves),
        )

    def leading(self, x: Tensor, steps: int) -> Tensor:  # (B, C, H, W) -> (B,)
        """Return the class that leads at the image itself."""
        lo, hi, _ = self._boxes(x, x, steps)
        return self.head.logits(0.5 * (lo + hi))[0].argmax(dim=1)

    def lead(
        self,
        low: Tensor,  # (B, C, H, W): the images' box
        high: Tensor,
        label: Tensor,  # (B,)
        steps: int,
    ) -> tuple[Tensor, Tensor]:  # (B,), (B,)
        """Return a lower bound of the least lead of `label` over the box, and the boxes' distance.

        The distance is a bound in the 2-norm of (lo, hi) together.
        """
        lo, hi, distance = self._boxes(low, high, steps)
        if lo.ndim == 4 and self.head.pool > 1:
            lo, hi = (F.avg_pool2d(part, self.head.pool) for part in (lo, hi))
        lo, hi = lo.flatten(1), hi.flatten(1)
        weight, bias = self.head.map.weight, self.head.bias
        apart = weight[label][:, None] - weight  # (B, classes, features)
        least = (F.relu(apart) * lo[:, None] - F.relu(-apart) * hi[:, None]).sum(dim=2)
        least = least + (bias[label][:, None] - bias)
        # A difference of rows, applied to (lo, hi) by its positive and negative parts, has its own
        # norm there; pooling divides it.
        norms = self.head.differences[label]
        size = norms * self.head.pool * (row_norms(lo) + row_norms(hi))[:, None]
        size = size + 2.0 * float(bias.abs().max())
        operations = lo.shape[1] + self.head.pool**2 + 8
        least = least - norms * distance[:, None] * (1 + 8 * UNIT) - rounding(operations) * size
        least = least.scatter(1, label[:, None], torch.inf)
        return least.amin(dim=1), distance

    def facts(self) -> dict[str, Any]:
        """Return what the bounds rest on, as JSON can hold it."""
        return {
            "m": self.m,
            "step": self.step.size,
            "rate": self.step.rate,
            "precision": "float64",
            "slack": "gamma_k bounds of every float64 sum; boxes widened by their residual bound",
        }

    def _boxes(self, low: Tensor, high: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return lo, hi and an upper bound of their distance to the exact solution."""
        b_lo, b_hi, slack = self._biases(low, high)
        lo, hi = torch.zeros_like(b_lo), torch.zeros_like(b_hi)
        for _ in range(steps):
            q_lo, q_hi = self._residuals(lo, hi, b_lo, b_hi)
            lo = forward_backward(lo, q_lo, self.step.size)
            hi = forward_backward(hi, q_hi, self.step.size)
        q_lo, q_hi = self._residuals(lo, hi, b_lo, b_hi)
        e = [torch.where(z > 0, q, q.clamp_max(0.0)) for z, q in ((lo, q_lo), (hi, q_hi))]
        size = row_norms(lo) + row_norms(hi)
        gain = 1.0 + self.up.norm + self.down.norm
        off = (self.up.slip + self.down.slip + 8 * UNIT * gain) * size + slack
        off = off + 8 * UNIT * (row_norms(b_lo) + row_norms(b_hi))
        distance = (row_norms(torch.cat([part.flatten(1) for part in e], dim=1)) + off) / self.m
        return lo, hi, distance * (1 + 8 * UNIT)

    def _residuals(self, lo: Tensor, hi: Tensor, b_lo: Tensor, b_hi: Tensor) -> list[Tensor]:
        """Return each half's F(lo, hi) - b."""
        q_lo = lo - self.up.apply(lo) - self.down.apply(hi) - b_lo
        q_hi = hi - self.up.apply(hi) - self.down.apply(lo) - b_hi
        return [q_lo, q_hi]

    def _biases(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the ends of u over the box, and a bound of their error (2-norm of both)."""
        ends = [self.source.standardised(part) for part in (low, high)]
        middle, radius = 0.5 * (ends[0] + ends[1]), 0.5 * (ends[1] - ends[0])
        centre = self.source.map.apply(middle) + self.source.bias
        spread = self.spread.apply(radius)
        # Standardising and halving round each end by a few units of itself, and the ends came
        # rounded, by units of a pixel or of the radius: the bound for a point, taken at both ends
        # and so much further out, covers those and the sums.
        pixel = (1.0 + self.source.mean.abs().max()) / self.source.std.min()
        reach = torch.cat([part.abs().flatten(1) for part in ends], dim=1) + pixel
        slack = rounding(self.source.map.terms + 16) * (
            2.0 * self.source.map.absolute_norm * row_norms(reach)
            + 2.0 * float(self.source.bias.norm()) * centre[0].numel() ** 0.5
        )
        return centre - spread, centre + spread, slack
