"""A monotone DEQ as real arithmetic defines it: its maps in float64, with bounds of every error.

The stored weights, read as real numbers, define W, U and the head exactly, and with them one
equilibrium per image, the same on every machine. What is here bounds how far a float64 evaluation
may be from that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from deqcert.models.linear_maps import (
    UNIT,
    Convolution,
    LinearMap,
    Matrix,
    adjoint_kernel,
    rounding,
)
from deqcert.solvers.splitting import (
    Step,
    choose_step,
    forward_backward_rate,
    peaceman_rachford_rate,
    split_rate,
)


class Operator:
    """F = I - W with F >= m I.

    Args:
        m: Strong monotonicity, true of the exact F.
        lipschitz: Upper bound of the spectral norm of F.
        slip: Upper bound of the norm of (computed minus exact) F z, per norm of z.
        apply: Computes F z, (B, ...) float64.
        parts: Upper bounds of the norms of the symmetric and of the skew part of F.
        whole: F as one map, where it is one.
    """

    def __init__(
        self,
        *,
        m: float,
        lipschitz: float,
        slip: Callable[[], float],
        apply: Callable[[Tensor], Tensor],
        parts: Callable[[], tuple[float, float]],
        whole: LinearMap | None = None,
    ) -> None:
        self.whole = whole
        self.m = m
        self.lipschitz = lipschitz
        self.apply = apply
        self._slip = slip
        self._parts = parts

    @cached_property
    def slip(self) -> float:
        """Upper bound of the norm of (computed minus exact) F z, per norm of z."""
        return self._slip()

    @cached_property
    def parts(self) -> tuple[float, float]:
        """Upper bounds of the norms of the symmetric and of the skew part of F."""
        symmetric, skew = self._parts()
        return max(self.m, symmetric), skew

    def rate(self, size: float) -> float:
        """Upper bound of the contraction factor of a forward-backward step of this size."""
        symmetric, skew = self.parts
        general = forward_backward_rate(size, m=self.m, lipschitz=self.lipschitz)
        return min(general, split_rate(size, low=self.m, high=symmetric, skew=skew))

    def exact_rate(self, size: float) -> float:
        """The same, by a decomposition for each size where F is one map."""
        if self.whole is None:
            return self.rate(size)
        return min(self.rate(size), self.whole.plus_identity(-size, 1.0).norm)

    def reflection_rate(self, size: float) -> float:
        """Upper bound of the contraction factor of a Peaceman-Rachford step of this size."""
        general = peaceman_rachford_rate(size, m=self.m, lipschitz=self.lipschitz)
        if not isinstance(self.whole, Matrix):
            return general
        eye = torch.eye(len(self.whole.weight), dtype=torch.float64)
        inverse = torch.linalg.inv(eye + size * self.whole.weight.cpu())
        # The inverse of a matrix whose condition is at most 1 + size L, computed stably.
        slack = rounding(100 * len(eye)) * (1.0 + size * self.lipschitz) ** 2
        return min(general, Matrix(2 * inverse - eye).norm + slack)

    def step(self) -> Step:
        """Return the forward-backward step of the cell: the lowest rate that few norms prove."""
        return choose_step(self.rate, m=self.m, lipschitz=self.lipschitz, points=64)

    def exact_step(self) -> Step:
        """Return the forward-backward step of the lowest rate that can be proved."""
        cheap = self.step()
        found = [
            choose_step(self.exact_rate, m=self.m, lipschitz=self.lipschitz),
            Step(cheap.size, self.exact_rate(cheap.size)),
        ]
        return min(found, key=lambda step: step.rate)

    def reflection_step(self) -> Step:
        """Return the Peaceman-Rachford step of the cell."""
        return choose_step(self.reflection_rate, m=self.m, lipschitz=self.lipschitz, points=8)


def dense_operator(matrix: Matrix, *, m: float) -> Operator:
    """Return F given by its matrix."""

    def parts() -> tuple[float, float]:
        weight = matrix.weight.cpu()
        error = matrix.error + 2 * UNIT * float(weight.norm())
        half = [0.5 * (weight + weight.T), 0.5 * (weight - weight.T)]
        symmetric, skew = (Matrix(part, error=error).norm for part in half)
        return symmetric, skew

    return Operator(
        m=m,
        lipschitz=max(m, matrix.norm),
        slip=lambda: matrix.slip,
        apply=matrix.apply,
        parts=parts,
        whole=matrix,
    )


def quadratic_convolution(a: Convolution, skew: Convolution, *, m: float) -> Operator:
    """Return F = m I + A'A - K, K the skew part B - B', all zero-padded convolutions.

    A'A is no convolution near the borders, so that its norm is bounded through that of A.
    """
    adjoint = a.transposed()
    gram = a.norm**2 * (1 + 4 * UNIT)

    def slip() -> float:
        through = a.slip * (2 * a.norm + a.slip) + adjoint.slip * a.slip
        return through + skew.slip + 4 * UNIT * (m + gram + skew.norm)

    return Operator(
        m=m,
        lipschitz=(m + gram + skew.norm) * (1 + 4 * UNIT),
        slip=slip,
        apply=lambda z: m * z + adjoint.apply(a.apply(z)) - skew.apply(z),
        parts=lambda: ((m + gram) * (1 + 4 * UNIT), skew.norm),
    )


def kernel_operator(w: Convolution, *, m: float) -> Operator:
    """Return F = I - W for one convolution W."""
    f = w.plus_identity(-1.0, 1.0)

    def parts() -> tuple[float, float]:
        # A zero-padded convolution's symmetric and skew parts are zero-padded convolutions.
        kernel, adjoint = f.kernel.cpu(), adjoint_kernel(f.kernel.cpu())
        error = f.error + 2 * UNIT * float(kernel.abs().sum())
        half = [0.5 * (kernel + adjoint), 0.5 * (kernel - adjoint)]
        symmetric, skew = (Convolution(part, f.size, error=error).norm for part in half)
        return symmetric, skew

    return Operator(
        m=m,
        lipschitz=max(m, f.norm),
        slip=lambda: w.slip + 2 * UNIT * (1.0 + w.norm),
        apply=lambda z: z - w.apply(z),
        parts=parts,
        whole=f,
    )


@dataclass(frozen=True)
class Source:
    """The bias of the equilibrium, u(x) = U (x - mean) / std + b.

    Attributes:
        map: U.
        bias: b, shaped to be added to images of U. float64
        mean: Pixel means, shaped likewise. float64
        std: Pixel deviations, shaped likewise. float64
    """

    map: LinearMap
    bias: Tensor
    mean: Tensor
    std: Tensor

    @cached_property
    def norm(self) -> float:
        """Upper bound of the Lipschitz constant of u, in pixel units (1 / std included)."""
        return self.map.norm / float(self.std.min()) * (1 + 4 * UNIT)

    def standardised(self, x: Tensor) -> Tensor:  # (B, C, H, W) float64
        """Return (x - mean) / std, shaped as U takes it."""
        v = (x - self.mean.to(x.device)) / self.std.to(x.device)
        return v.flatten(1) if isinstance(self.map, Matrix) else v

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, C, H, W) -> (B, ...), (B,)
        """Return u(x) in float64 and, per row, an upper bound of its distance to the exact one."""
        v = self.standardised(x.double())
        u = self.map.apply(v) + self.bias.to(x.device)
        return u, self.slack(v, u)

    def slack(self, v: Tensor, u: Tensor) -> Tensor:  # (B, ...), (B, ...) -> (B,)
        """Return an upper bound of the distance of the computed `u` to the exact one."""
        reach = self.map.absolute_norm * row_norms(v.detach())
        size = float(self.bias.norm()) * u[0].numel() ** 0.5  # of b at every pixel, generously
        return rounding(self.map.terms + 8) * (reach + size)


class Head:
    """Logits C P y + c of a state y, P average pooling.

    Args:
        weight: C. shape: (classes, features)
        bias: c. shape: (classes,)
        pool: Side of the average pooling; 1 for none.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, pool: int) -> None:
        self.map = Matrix(weight)
        self.bias = bias.detach().double().cpu()
        self.pool = pool
        self._operations = self.map.terms + pool**2 + 4

    @cached_property
    def differences(self) -> Tensor:  # (classes, classes) float64
        """Upper bounds of the norms of the rows' differences as functions of y; 0 diagonal."""
        rows = self.map.weight.cpu()
        apart = torch.stack([(rows - row).norm(dim=1) for row in rows])
        # Averaging p p numbers into one scales norms by 1 / p.
        return apart / self.pool * (1.0 + rounding(self._operations))

    def logits(self, y: Tensor) -> tuple[Tensor, Tensor]:  # (B, ...) -> (B, classes), (B,)
        """Return the logits and, per row, an upper bound of the error of any of them."""
        if self.bias.device != y.device:
            self.bias = self.bias.to(y.device)
        features = F.avg_pool2d(y, self.pool) if y.ndim == 4 and self.pool > 1 else y
        values = self.map.apply(features.flatten(1)) + self.bias
        gain = float(self.map.weight.norm(dim=1).max()) / self.pool
        size = gain * row_norms(y) + float(self.bias.abs().max())
        return values, rounding(self._operations) * size


def row_norms(x: Tensor) -> Tensor:  # (B, ...) float64 -> (B,)
    """Return upper bounds of the rows' norms, rounding included."""
    flat = x.flatten(1)
    return torch.linalg.vector_norm(flat, dim=1) * (1.0 + rounding(flat.shape[1] + 4))
