"""A linear prediction of fixed points from injections, fitted to a few solves of one image."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from deqcert.solvers import State, map_tree

RIDGE = 1e-3
"""Share of the mean diagonal added to the normal equations, so that few rows suffice."""

_MOST_FEATURES = 2048
_CHUNK = 16


class LinearPredictor:
    """z0 = mean fixed point + a small convolution of the injection's deviation from its mean.

    Noise is local and so is most of the cell's answer to it: one 3x3 convolution per resolution,
    the same everywhere, has hundreds of equations per unknown even with 20 rows, where a dense
    map, a nearest neighbour or a low-rank Jacobian would need as many rows as there are pixels.
    Injections are averaged to the size of each resolution; parts without height and width count
    as one pixel. Where there would be too many features, the mean alone is predicted.

    Args:
        injection: What the model's `inject` gave; tensors of shape (rows, ...).
        state: The fixed points, finite; tensors of shape (rows, ...).
    """

    def __init__(self, injection: Any, state: State) -> None:
        self._single = isinstance(state, Tensor)
        parts = (state,) if isinstance(state, Tensor) else state
        self._maps = [_LinearMap(_features(injection, part), part) for part in parts]

    def __call__(self, injection: Any) -> State:  # tensors of shape (rows, ...)
        """Return the predicted fixed points, row by row."""
        parts = tuple(m(_features(injection, m.like)) for m in self._maps)
        return parts[0] if self._single else parts


class _LinearMap:
    """The prediction of one part of the state: base + weight * features."""

    def __init__(
        self,
        features: Tensor,  # (rows, C, H, W)
        part: Tensor,  # (rows, ...)
    ) -> None:
        self.like = part[:1]
        target = _as_maps(part)
        mean, base = features.mean(0, keepdim=True), target.mean(0, keepdim=True)
        self.padding = 1 if min(features.shape[-2:]) > 1 else 0
        side = 1 + 2 * self.padding
        self.weight: Tensor | None = None
        self.base = base  # (1, c, H, W)
        if features.shape[1] * side * side <= _MOST_FEATURES:
            solved = _regression(features - mean, target - base, side)
            self.weight = solved.reshape(target.shape[1], features.shape[1], side, side).to(part)
            self.base = base - F.conv2d(mean, self.weight, padding=self.padding)

    def __call__(self, features: Tensor) -> Tensor:  # (rows, C, H, W) -> (rows, ...)
        if self.weight is None:
            out = self.base.expand(len(features), *self.base.shape[1:]).contiguous()
        else:
            out = F.conv2d(features, self.weight, padding=self.padding) + self.base
        return out.reshape(len(features), *self.like.shape[1:])


def _regression(
    features: Tensor,  # (rows, C, H, W), of mean zero over the rows
    target: Tensor,  # (rows, c, H, W), of mean zero over the rows
    side: int,
) -> Tensor:  # (c, C side side), float64 on the CPU
    """Return the ridge regression of the target's pixels on the patches around them."""
    count = features.shape[1] * side * side
    gram = torch.zeros(count, count, dtype=torch.float64)
    moment = torch.zeros(count, target.shape[1], dtype=torch.float64)
    for low in range(0, len(features), _CHUNK):
        rows = features[low : low + _CHUNK].float()
        patches = F.unfold(rows, side, padding=side // 2).transpose(1, 2).reshape(-1, count)
        pixels = target[low : low + _CHUNK].float().flatten(2).transpose(1, 2)
        gram += (patches.T @ patches).double().cpu()
        moment += (patches.T @ pixels.reshape(-1, target.shape[1])).double().cpu()
    ridge = RIDGE * gram.diagonal().mean() + torch.finfo(torch.float32).tiny
    gram.diagonal().add_(ridge)
    return torch.linalg.solve(gram, moment).T


def _features(injection: Any, part: Tensor) -> Tensor:  # (rows, C, H, W) at the size of `part`
    height, width = _as_maps(part).shape[-2:]
    found: list[Tensor] = []

    def note(leaf: Tensor) -> Tensor:
        if leaf.is_floating_point():
            found.append(F.adaptive_avg_pool2d(_as_maps(leaf), (height, width)))
        return leaf

    map_tree(note, injection)
    return torch.cat(found, dim=1).to(part.dtype)


def _as_maps(part: Tensor) -> Tensor:  # (rows, ...) -> (rows, C, H, W)
    return part if part.ndim == 4 else part.reshape(len(part), -1, 1, 1)
