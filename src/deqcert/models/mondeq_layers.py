"""The parts of a monotone DEQ: trainable forms, and folded ones for inference."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from deqcert.models.linear_maps import (
    UNIT,
    Convolution,
    LinearMap,
    Matrix,
    adjoint_kernel,
    rounding,
)
from deqcert.models.mondeq_config import MonDEQConfig
from deqcert.models.mondeq_exact import (
    Head,
    Operator,
    Source,
    dense_operator,
    kernel_operator,
    quadratic_convolution,
)
from deqcert.solvers.splitting import Step


class MonotoneOperator(nn.Module, ABC):
    """Weights of W with I - W >= m I, by construction."""

    reflects = False
    """Whether the cell is a Peaceman-Rachford step, or else a forward-backward one."""

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:  # (B, ...) -> (B, ...)
        """Return F(z) = z - W z."""

    @abstractmethod
    def exact(self) -> Operator:
        """Return F in float64, as the stored weights define it."""

    def step_size(self) -> float:
        """Return the step size of the cell, from upper bounds of F as it is now."""
        return _step(self.exact(), reflects=self.reflects).size

    def resolvent(self, size: float) -> Tensor:  # (n, n), for dense operators
        """Return (I + size F)^-1."""
        weight = next(self.parameters())
        eye = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        return torch.linalg.inv(eye + size * self(eye).T)

    def fold(self) -> FoldedOperator:
        """Return the form for inference."""
        return FoldedOperator(self)


class QuadraticMatrix(MonotoneOperator):
    """F = m I + A'A - B + B' (Winston, Kolter 2020)."""

    def __init__(self, width: int, m: float) -> None:
        super().__init__()
        self.m = m
        self.a = nn.Linear(width, width, bias=False)
        self.b = nn.Linear(width, width, bias=False)

    def matrix(self) -> Tensor:  # (width, width)
        """Return F, in the precision of the weights."""
        a, b = self.a.weight, self.b.weight
        eye = torch.eye(len(a), dtype=a.dtype, device=a.device)
        return self.m * eye + a.T @ a - b + b.T

    def forward(self, z: Tensor) -> Tensor:
        """Return F(z)."""
        return z @ self.matrix().T

    def exact(self) -> Operator:
        """Return F in float64."""
        return dense_operator(self.exact_matrix(), m=self.m)

    def exact_matrix(self) -> Matrix:
        """Return F in float64 as a matrix."""
        a, b = (part.weight.detach().double().cpu() for part in (self.a, self.b))
        total = self.m * torch.eye(len(a), dtype=torch.float64) + a.T @ a - b + b.T
        size = float(a.norm()) ** 2 + 2 * float(b.norm()) + self.m * len(a) ** 0.5
        return Matrix(total, error=rounding(len(a) + 4) * size)


class QuadraticKernel(MonotoneOperator):
    """The same with zero-padded convolutions, their adjoints those of the padded maps."""

    def __init__(self, channels: int, kernel: int, size: tuple[int, int], m: float) -> None:
        super().__init__()
        self.m, self.size = m, size
        self.a = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        self.b = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """Return F(z)."""
        a, b = self.a.weight, self.b.weight
        padding = a.shape[-1] // 2
        gram = F.conv_transpose2d(F.conv2d(z, a, padding=padding), a, padding=padding)
        return self.m * z + gram - F.conv2d(z, b - adjoint_kernel(b), padding=padding)

    def exact(self) -> Operator:
        """Return F in float64."""
        a, b = (part.weight.detach().double().cpu() for part in (self.a, self.b))
        skew = b - adjoint_kernel(b)
        error = 2 * UNIT * float(b.abs().sum())  # the subtraction; crude but tiny
        return quadratic_convolution(
            Convolution(a, self.size), Convolution(skew, self.size, error=error), m=self.m
        )


class AbsoluteOperator(MonotoneOperator):
    """W = (1 - m) Q^-1/2 V Q^-1/2, Q diagonal, so that I - abs(W) >= m I.

    With S = (|V| + |V|') / 2, a positive vector d and q_i = max(1, (S d)_i / d_i), S d <= Q d, so
    the nonnegative matrix Q^-1 S has no eigenvalue above 1 (Collatz, Wielandt), nor has its
    symmetric relative Q^-1/2 S Q^-1/2. Free in V and log d. W itself then obeys I - W >= m I as
    well. For a convolution, d has one value per channel; sums over the whole kernel bound those at
    the borders from above.
    """

    def __init__(self, weight: Tensor, size: tuple[int, int] | None, m: float) -> None:
        super().__init__()
        self.m, self.size = m, size
        self.v = nn.Parameter(weight)
        self.log_d = nn.Parameter(torch.zeros(len(weight)))

    def weight(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the matrix or kernel of W."""
        dtype = dtype or self.v.dtype
        v, d = self.v.to(dtype), self.log_d.to(dtype).exp()
        total = v.abs() if v.ndim == 2 else v.abs().sum(dim=(2, 3))
        row = 0.5 * (total + total.T) @ d / d
        scale = row.clamp_min(1.0).rsqrt()
        shape = (-1, 1) + (1,) * (v.ndim - 2)
        return (1.0 - self.m) * v * scale.view(shape) * scale.view(1, *shape[:-1])

    def forward(self, z: Tensor) -> Tensor:
        """Return z - W z."""
        w = self.weight()
        if self.size is None:
            return z - z @ w.T
        return z - F.conv2d(z, w, padding=w.shape[-1] // 2)

    def exact(self) -> Operator:
        """Return F in float64."""
        w = self.plain()
        if isinstance(w, Matrix):
            return dense_operator(w.plus_identity(-1.0, 1.0), m=self.m)
        return kernel_operator(w, m=self.m)

    def plain(self) -> LinearMap:
        """Return W."""
        with torch.no_grad():
            w = self.weight(torch.float64).cpu()
        # Each entry errs by a few units of itself, the row sums' own rounding among them.
        error = rounding(len(w) * math.prod(w.shape[2:]) + 24) * float(w.abs().sum())
        return (
            Matrix(w, error=error) if self.size is None else Convolution(w, self.size, error=error)
        )


class FoldedOperator(nn.Module):
    """F for inference: what the trainable form computes, its exact form kept beside it."""

    matrix: Tensor | None
    inverse: Tensor | None

    def __init__(self, trained: MonotoneOperator) -> None:
        super().__init__()
        self._exact = trained.exact()
        self._trained = trained
        self._size = _step(self._exact, reflects=trained.reflects).size
        matrix = inverse = None
        if isinstance(trained, QuadraticMatrix):
            matrix = trained.exact_matrix().weight
        elif isinstance(trained, AbsoluteOperator) and isinstance(w := trained.plain(), Matrix):
            matrix = w.plus_identity(-1.0, 1.0).weight
        if matrix is not None and trained.reflects:
            eye = torch.eye(len(matrix), dtype=torch.float64)
            inverse = torch.linalg.inv(eye + self._size * matrix)
        self._full = {"matrix": matrix, "inverse": inverse}
        self.register_buffer("matrix", None)
        self.register_buffer("inverse", None)
        self._fill()

    def _fill(self) -> None:
        like = next(self._trained.parameters())
        for name, full in self._full.items():
            setattr(self, name, None if full is None else full.to(like))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FoldedOperator:
        # From float64 to whatever precision and device the model now has: never by way of a
        # coarser one.
        super()._apply(fn, recurse)
        self._fill()
        return self

    def forward(self, z: Tensor) -> Tensor:
        """Return F(z)."""
        return self._trained(z) if self.matrix is None else z @ self.matrix.T

    def step_size(self) -> float:
        """Return the step size of the cell."""
        return self._size

    def resolvent(self, size: float) -> Tensor:  # (n, n)
        """Return (I + size F)^-1."""
        assert size == self._size, "a folded operator has one step size"
        assert self.inverse is not None
        return self.inverse

    def exact(self) -> Operator:
        """Return F in float64, of the weights before any cast."""
        return self._exact


class BiasSource(nn.Module):
    """u(x) = U (x - mean) / std + b."""

    def __init__(self, config: MonDEQConfig) -> None:
        super().__init__()
        channels = config.input_shape[0]
        self.layer: nn.Linear | nn.Conv2d
        if config.kind == "dense":
            self.layer = nn.Linear(math.prod(config.input_shape), config.width)
        else:
            self.layer = nn.Conv2d(
                channels, config.width, config.kernel, padding=config.kernel // 2
            )
        self.size = config.input_shape[1:]
        self.mean, self.std = config.mean, config.std

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:  # (B, C, H, W) -> (B, ...), None
        """Return u(x), and None for the bound of its rounding error."""
        mean, std = (_per_channel(v).to(x) for v in (self.mean, self.std))
        v = (x - mean) / std
        return self.layer(v.flatten(1) if isinstance(self.layer, nn.Linear) else v), None

    def exact(self) -> Source:
        """Return u in float64."""
        weight, bias = self.layer.weight.detach(), self.layer.bias
        assert bias is not None
        dense = isinstance(self.layer, nn.Linear)
        bias = bias.detach().double().cpu()
        return Source(
            map=Matrix(weight) if dense else Convolution(weight, self.size),
            bias=bias if dense else bias[:, None, None],
            mean=_per_channel(self.mean),
            std=_per_channel(self.std),
        )

    def fold(self) -> FoldedSource:
        """Return the form for inference."""
        return FoldedSource(self)


class FoldedSource(nn.Module):
    """u(x) computed in float64 and rounded once, with a bound of its distance to the exact one."""

    def __init__(self, trained: BiasSource) -> None:
        super().__init__()
        self._exact = trained.exact()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B, C, H, W) -> (B, ...), (B,)
        """Return u(x) in the precision of `x`, and the bound in float64."""
        u, slack = self._exact(x)
        rounded = u.to(x.dtype)
        moved = (rounded.double() - u).detach().flatten(1).norm(dim=1)
        return rounded, slack + moved * (1.0 + 2.0**-30)

    def exact(self) -> Source:
        """Return u in float64, of the weights before any cast."""
        return self._exact


class LinearHead(nn.Module):
    """Average pooling, then a linear map."""

    def __init__(self, config: MonDEQConfig) -> None:
        super().__init__()
        self.pool = config.pool
        features = math.prod(config.state_shape) // config.pool**2
        self.layer = nn.Linear(features, config.num_classes)

    def forward(self, y: Tensor) -> Tensor:  # (B, ...) -> (B, classes)
        """Return the logits."""
        pooled = F.avg_pool2d(y, self.pool) if self.pool > 1 else y
        return self.layer(pooled.flatten(1))

    def exact(self) -> Head:
        """Return the logits in float64."""
        return Head(self.layer.weight, self.layer.bias, pool=self.pool)

    def fold(self) -> FoldedHead:
        """Return the form for inference."""
        return FoldedHead(self)


class FoldedHead(nn.Module):
    """The same, its exact form kept beside it."""

    def __init__(self, trained: LinearHead) -> None:
        super().__init__()
        self._trained, self._exact = trained, trained.exact()

    def forward(self, y: Tensor) -> Tensor:  # (B, ...) -> (B, classes)
        """Return the logits."""
        return self._trained(y)

    def exact(self) -> Head:
        """Return the logits in float64, of the weights before any cast."""
        return self._exact


def make_operator(config: MonDEQConfig) -> MonotoneOperator:
    """Return fresh weights of W."""
    operator = _make_operator(config)
    operator.reflects = config.splitting == "peaceman-rachford"
    return operator


def _make_operator(config: MonDEQConfig) -> MonotoneOperator:
    size, k = config.input_shape[1:], config.kernel
    if config.constraint == "quadratic":
        if config.kind == "dense":
            return QuadraticMatrix(config.width, config.m)
        return QuadraticKernel(config.width, k, size, config.m)
    shape = (config.width, config.width) + ((k, k) if config.kind == "conv" else ())
    weight = torch.empty(shape)
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    return AbsoluteOperator(weight, size if config.kind == "conv" else None, config.m)


def _step(operator: Operator, *, reflects: bool) -> Step:
    return operator.reflection_step() if reflects else operator.step()


def _per_channel(values: tuple[float, ...]) -> Tensor:  # (C, 1, 1)
    return torch.tensor(values, dtype=torch.float64)[:, None, None]
