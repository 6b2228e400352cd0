"""MDEQ written a second time, as plain functions over weights in the public format.

From the description in PAPER 4 alone, in float64, with textbook solvers: shares no line with the
package, so that agreement means something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

State = list[Tensor]
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Public:
    """A public configuration: PAPER 4's table."""

    channels: tuple[int, ...]
    head: tuple[int, ...]
    final: int
    size: int = 32
    classes: int = 10
    stride: int = 1
    pixels: tuple[tuple[float, ...], tuple[float, ...]] = CIFAR
    fusion_affine: bool = False


CONFIGURATIONS = {
    "mdeq-small": Public((8, 16, 32), (7, 14, 28), 200),
    "mdeq-large": Public((32, 64, 128, 256), (14, 28, 56, 112), 1680),
    "mdeq-small-imagenet": Public(
        (32, 64, 128, 256), (28, 56, 112, 224), 2048, 224, 1000, 2, IMAGENET
    ),
    "mdeq-small-imagenet-2020": Public(
        (32, 64, 128, 256), (24, 48, 96, 192), 2048, 224, 1000, 2, IMAGENET, True
    ),
}


def random_weights(shape: Public, seed: int = 0) -> dict[str, Tensor]:
    """Weights in the public format, every scale, shift, gain and statistic away from its start."""
    g = torch.Generator().manual_seed(seed)
    made: dict[str, Tensor] = {}

    def uniform(*size: int) -> Tensor:
        return 0.5 + torch.rand(*size, generator=g)

    def normal(*size: int, deviation: float = 0.3) -> Tensor:
        return deviation * torch.randn(*size, generator=g)

    def conv(name: str, out: int, inp: int, k: int, *, bias: bool = False, g_v: bool = False):
        weight = normal(out, inp, k, k, deviation=(2 / (inp * k * k)) ** 0.5)
        made[f"{name}.weight_v" if g_v else f"{name}.weight"] = weight
        if g_v:
            made[f"{name}.weight_g"] = uniform(out, 1, 1, 1)
        if bias:
            made[f"{name}.bias"] = normal(out)

    def affine(name: str, count: int):
        made[f"{name}.weight"], made[f"{name}.bias"] = uniform(count), normal(count)

    def batch_norm(name: str, count: int, *, scale: bool = True):
        if scale:
            affine(name, count)
        made[f"{name}.running_mean"], made[f"{name}.running_var"] = normal(count), uniform(count)
        made[f"{name}.num_batches_tracked"] = torch.tensor(17)

    c = shape.channels
    conv("downsample.0", c[0], 3, 3)
    batch_norm("downsample.1", c[0])
    conv("downsample.3", c[0], c[0], 3)
    batch_norm("downsample.4", c[0])
    conv("stage0.0", c[0], c[0], 1)
    batch_norm("stage0.1", c[0])
    for i, n in enumerate(c):
        block = f"fullstage.branches.{i}.blocks.0"
        conv(f"{block}.conv1", 5 * n, n, 3, g_v=True)
        affine(f"{block}.gn1", 5 * n)
        conv(f"{block}.conv2", n, 5 * n, 3, g_v=True)
        affine(f"{block}.gn2", n)
        affine(f"{block}.gn3", n)
        for j, m in enumerate(c):
            path = f"fullstage.fuse_layers.{i}.{j}.net"
            if j > i:
                conv(f"{path}.conv", n, m, 1)
                affine(f"{path}.gnorm", n)
            for k in range(i - j):
                out = n if k == i - j - 1 else m
                conv(f"{path}.{k}.conv", out, m, 3)
                affine(f"{path}.{k}.gnorm", out)
        conv(f"fullstage.post_fuse_layers.{i}.conv", n, n, 1, g_v=True)
        if shape.fusion_affine:
            affine(f"fullstage.post_fuse_layers.{i}.gnorm", n)
        h = shape.head[i]
        conv(f"incre_modules.{i}.0.conv1", h, n, 1)
        batch_norm(f"incre_modules.{i}.0.bn1", h, scale=False)
        conv(f"incre_modules.{i}.0.conv2", h, h, 3)
        batch_norm(f"incre_modules.{i}.0.bn2", h, scale=False)
        conv(f"incre_modules.{i}.0.conv3", 4 * h, h, 1)
        batch_norm(f"incre_modules.{i}.0.bn3", 4 * h, scale=False)
        conv(f"incre_modules.{i}.0.downsample.0", 4 * h, n, 1)
        batch_norm(f"incre_modules.{i}.0.downsample.1", 4 * h)
        if i + 1 < len(c):
            conv(f"downsamp_modules.{i}.0", 4 * shape.head[i + 1], 4 * h, 3, bias=True)
            batch_norm(f"downsamp_modules.{i}.1", 4 * shape.head[i + 1])
    conv("final_layer.0", shape.final, 4 * shape.head[-1], 1, bias=True)
    batch_norm("final_layer.1", shape.final)
    made["classifier.weight"] = normal(shape.classes, shape.final, deviation=shape.final**-0.5)
    made["classifier.bias"] = normal(shape.classes)
    return made


class Network:
    """The public computation, in float64 and eval mode."""

    def __init__(self, weights: dict[str, Tensor], shape: Public) -> None:
        self.shape = shape
        self.w = {name: tensor.double() for name, tensor in weights.items()}

    def logits(self, x: Tensor, solver: str, steps: int) -> tuple[Tensor, State]:
        """Return the logits of the k-th iterate from zero, and the iterate."""
        top = self.stem(x.double())
        start, size = [], top.shape[-1]
        for i, count in enumerate(self.shape.channels):
            start.append(torch.zeros(len(x), count, size >> i, size >> i, dtype=torch.float64))

        def flat_cell(z: Tensor) -> Tensor:
            return _flat(self.cell(_like(z, start), top))

        state = _like(SOLVERS[solver](flat_cell, _flat(start), steps), start)
        return self.head(state), state

    def stem(self, x: Tensor) -> Tensor:
        """Standardise, two strided convolutions, one pointwise one."""
        mean, std = (torch.tensor(v).double().view(1, 3, 1, 1) for v in self.shape.pixels)
        y, stride = (x - mean) / std, self.shape.stride
        y = torch.relu(self.bn("downsample.1", self.conv("downsample.0", y, stride)))
        y = torch.relu(self.bn("downsample.4", self.conv("downsample.3", y, stride)))
        return torch.relu(self.bn("stage0.1", self.conv("stage0.0", y)))

    def cell(self, z: State, top: Tensor) -> State:
        """Residual block per resolution, then fusion."""
        blocks = []
        for i, part in enumerate(z):
            name = f"fullstage.branches.{i}.blocks.0"
            y = torch.relu(self.gn(f"{name}.gn1", self.conv(f"{name}.conv1", part)))
            y = self.conv(f"{name}.conv2", y) + (top if i == 0 else 0)
            blocks.append(self.gn(f"{name}.gn3", torch.relu(self.gn(f"{name}.gn2", y) + part)))
        return [self.fused(blocks, i) for i in range(len(z))]

    def fused(self, blocks: State, i: int) -> Tensor:
        """What flows into resolution i."""
        total = torch.zeros_like(blocks[i])
        for j, y in enumerate(blocks):
            name = f"fullstage.fuse_layers.{i}.{j}.net"
            if j > i:
                y = self.gn(f"{name}.gnorm", self.conv(f"{name}.conv", y))
                times = 2 ** (j - i)
                y = y.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)
            for k in range(i - j):
                y = torch.relu(y) if k else y
                y = self.gn(f"{name}.{k}.gnorm", self.conv(f"{name}.{k}.conv", y, 2))
            total = total + y
        name = f"fullstage.post_fuse_layers.{i}"
        return self.gn(f"{name}.gnorm", self.conv(f"{name}.conv", torch.relu(total)), groups=4)

    def head(self, z: State) -> Tensor:
        """Bottlenecks, gathered from high to low resolution, pooled and classified."""
        y = self.bottleneck(0, z[0])
        for i in range(1, len(z)):
            name = f"downsamp_modules.{i - 1}"
            down = torch.relu(self.bn(f"{name}.1", self.conv(f"{name}.0", y, 2)))
            y = self.bottleneck(i, z[i]) + down
        y = torch.relu(self.bn("final_layer.1", self.conv("final_layer.0", y)))
        pooled = y.flatten(2).sum(-1) / y[0, 0].numel()
        return pooled @ self.w["classifier.weight"].T + self.w["classifier.bias"]

    def bottleneck(self, i: int, z: Tensor) -> Tensor:
        """Three convolutions beside a shortcut."""
        name, y = f"incre_modules.{i}.0", z
        for k in (1, 2, 3):
            y = self.bn(f"{name}.bn{k}", self.conv(f"{name}.conv{k}", y))
            y = torch.relu(y) if k < 3 else y
        return torch.relu(y + self.bn(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", z)))

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        """Convolve, with weight norm where the weights have gains."""
        weight = self.w.get(f"{name}.weight")
        if weight is None:
            v = self.w[f"{name}.weight_v"]
            weight = self.w[f"{name}.weight_g"] * v / v.square().sum((1, 2, 3), keepdim=True).sqrt()
        bias = self.w.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2)

    def bn(self, name: str, x: Tensor) -> Tensor:
        """BatchNorm in eval mode."""
        mean, variance = (_wide(self.w[f"{name}.running_{k}"]) for k in ("mean", "var"))
        return self.scaled(name, (x - mean) / torch.sqrt(variance + 1e-5))

    def gn(self, name: str, x: Tensor, groups: int = 8) -> Tensor:
        """GroupNorm."""
        parts = x.reshape(len(x), groups, -1)
        parts = parts - parts.mean(-1, keepdim=True)
        parts = parts / torch.sqrt(parts.square().mean(-1, keepdim=True) + 1e-5)
        return self.scaled(name, parts.reshape(x.shape))

    def scaled(self, name: str, x: Tensor) -> Tensor:
        """Scale and shift, where there are any."""
        if f"{name}.weight" not in self.w:
            return x
        return x * _wide(self.w[f"{name}.weight"]) + _wide(self.w[f"{name}.bias"])


def picard(f: Callable[[Tensor], Tensor], z: Tensor, steps: int) -> Tensor:
    """z <- f(z)."""
    for _ in range(steps):
        z = f(z)
    return z


def anderson(f: Callable[[Tensor], Tensor], z: Tensor, steps: int) -> Tensor:
    """Window 6, ridge 1e-4: min ||sum a_i r_i||^2 + ridge ||a||^2 subject to sum a_i = 1."""
    points, values = [z], [f(z)]
    for _ in range(steps - 1):
        r = torch.stack(values, 1) - torch.stack(points, 1)
        system = torch.zeros(len(z), r.shape[1] + 1, r.shape[1] + 1, dtype=z.dtype)
        system[:, 0, 1:] = system[:, 1:, 0] = 1
        system[:, 1:, 1:] = r @ r.mT + 1e-4 * torch.eye(r.shape[1], dtype=z.dtype)
        right = torch.zeros(len(z), r.shape[1] + 1, dtype=z.dtype)
        right[:, 0] = 1
        a = torch.linalg.solve(system, right)[:, 1:]
        z = (a[:, :, None] * torch.stack(values, 1)).sum(1)
        points, values = [*points, z][-6:], [*values, f(z)][-6:]
    r = torch.stack(values, 1) - torch.stack(points, 1)
    gram = r @ r.mT + 1e-4 * torch.eye(r.shape[1], dtype=z.dtype)
    a = torch.linalg.solve(gram, torch.ones(len(z), r.shape[1], dtype=z.dtype))
    a = a / a.sum(1, keepdim=True)
    return (a[:, :, None] * torch.stack(values, 1)).sum(1)


def broyden(f: Callable[[Tensor], Tensor], z: Tensor, steps: int) -> Tensor:
    """Good Broyden on g(z) = f(z) - z, the inverse Jacobian kept as -I plus rank-one terms."""
    terms: list[tuple[Tensor, Tensor]] = []  # H = -I + sum u v'

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(1, keepdim=True)

    def times(x: Tensor) -> Tensor:
        return sum((u * dot(v, x) for u, v in terms), -x)

    def transposed(x: Tensor) -> Tensor:
        return sum((v * dot(u, x) for u, v in terms), -x)

    g = f(z) - z
    for step in range(steps):
        move = -times(g)
        z = z + move
        if step + 1 < steps:
            change = f(z) - z - g
            g = g + change
            v = transposed(move)
            terms.append(((move - times(change)) / dot(v, change), v))
    return z


SOLVERS = {"picard": picard, "anderson": anderson, "broyden": broyden}


def _flat(state: State) -> Tensor:
    return torch.cat([part.flatten(1) for part in state], dim=1)


def _like(flat: Tensor, state: State) -> State:
    parts = flat.split([part[0].numel() for part in state], dim=1)
    return [a.reshape(b.shape) for a, b in zip(parts, state, strict=True)]


def _wide(vector: Tensor) -> Tensor:
    return vector.view(1, -1, 1, 1)
