"""Linear maps in float64, with upper bounds of their norms and of their rounding errors.

Bounds here are never too small: they belong to the very map that runs (a zero-padded convolution,
not its circular relative of the same size) and are rounded outwards. Nothing iterates towards a
norm from below (THEORY 4.6).
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from deqcert.solvers.row_chunks import in_threads

UNIT = 2.0**-53
"""Unit roundoff of float64."""


_COLUMNS = 1 << 22
"""Numbers unfolded at once by a convolution: 32 MB, where 400 rows of MNIST would take 360."""


def rounding(operations: int) -> float:
    """Return an upper bound of gamma_k = k u / (1 - k u) for k `operations` in float64.

    A sum of k products computed in any order, with or without fused multiply-adds, differs from
    the exact one by at most gamma_k times the sum of their absolute values (Higham 2002, section
    3.1). Twice k u also covers the second-order terms that callers leave out.
    """
    return 2.0 * operations * UNIT


class Matrix:
    """x -> M x for rows x.

    Args:
        weight: M, exact or within `error` of the map meant. shape: (out, in)
        error: Upper bound of the spectral norm of abs(weight - M), so that it also bounds that of
            the difference and of its parts.
    """

    def __init__(self, weight: Tensor, *, error: float = 0.0) -> None:
        self.weight = weight.detach().double().cpu()
        self.error = error

    @property
    def terms(self) -> int:
        """Products per output number."""
        return self.weight.shape[1]

    @cached_property
    def norm(self) -> float:
        """Upper bound of the spectral norm."""
        return spectral_norm(self.weight) + self.error

    @cached_property
    def absolute_norm(self) -> float:
        """Upper bound of the spectral norm of abs(M)."""
        return spectral_norm(self.weight.abs()) + self.error

    @cached_property
    def slip(self) -> float:
        """Upper bound of the norm of (computed minus exact) M x, per norm of x."""
        return rounding(self.terms + 1) * self.absolute_norm + self.error

    def apply(self, x: Tensor) -> Tensor:  # (B, in) float64 -> (B, out)
        """Return M x for every row."""
        if self.weight.device != x.device:
            self.weight = self.weight.to(x.device)
        return x @ self.weight.T

    def mapped(self, change: str) -> Matrix:
        """Return the map of the ``absolute``, ``positive`` or ``negative`` part of the entries."""
        return Matrix(_part(self.weight, change), error=self.error)

    def plus_identity(self, scale: float, shift: float) -> Matrix:
        """Return scale M + shift I, for square M."""
        eye = torch.eye(len(self.weight), dtype=torch.float64)
        total = scale * self.weight.cpu() + shift * eye
        size = len(self.weight) ** 0.5 * (abs(scale) * self.norm + abs(shift))  # Frobenius norm
        return Matrix(total, error=abs(scale) * self.error + 3 * UNIT * size)


class Convolution:
    """Zero-padded convolution of images of a fixed size, stride 1, output as large as the input.

    Args:
        kernel: As of `torch.nn.functional.conv2d`, odd widths. shape: (out, in, k, k)
        size: (height, width) of the images.
        error: Upper bound of the spectral norm of the map of abs(`kernel` - the kernel meant).
    """

    def __init__(self, kernel: Tensor, size: tuple[int, int], *, error: float = 0.0) -> None:
        self.kernel = kernel.detach().double().cpu()
        self.size = size
        self.error = error

    @property
    def terms(self) -> int:
        """Products per output number."""
        return self.kernel[0].numel()

    @cached_property
    def norm(self) -> float:
        """Upper bound of the spectral norm of the zero-padded map."""
        return circular_norm(self.kernel, enclosing_size(self.size, self.kernel)) + self.error

    @cached_property
    def absolute_norm(self) -> float:
        """Upper bound of the spectral norm of the map with the absolute kernel."""
        # Of a nonnegative circular convolution the constant images have the largest gain.
        return spectral_norm(self.kernel.abs().sum(dim=(2, 3))) + self.error

    @cached_property
    def slip(self) -> float:
        """Upper bound of the norm of (computed minus exact) map, per norm of the image."""
        return rounding(self.terms + 1) * self.absolute_norm + self.error

    def apply(self, x: Tensor) -> Tensor:  # (B, in, h, w) float64 -> (B, out, h, w)
        """Return the convolved images."""
        if self.kernel.device != x.device:
            self.kernel = self.kernel.to(x.device)
        # Plain dot products, whatever the hardware: the bound above does not cover transforms
        # (Winograd, FFT) that a library may choose for a convolution.
        rows = max(1, _COLUMNS // (self.terms * x.shape[2] * x.shape[3]))
        return torch.cat([self._dots(part) for part in x.split(rows)])

    def _dots(self, x: Tensor) -> Tensor:  # (B, in, h, w) -> (B, out, h, w)
        out, _, k, _ = self.kernel.shape
        columns = F.unfold(x, k, padding=k // 2)  # (B, in k k, h w)
        return (self.kernel.reshape(out, -1) @ columns).reshape(len(x), out, *x.shape[2:])

    def mapped(self, change: str) -> Convolution:
        """Return the map of the ``absolute``, ``positive`` or ``negative`` part of the kernel."""
        return Convolution(_part(self.kernel, change), self.size, error=self.error)

    def transposed(self) -> Convolution:
        """Return the adjoint, which is zero-padded as well."""
        return Convolution(adjoint_kernel(self.kernel), self.size, error=self.error)

    def plus_identity(self, scale: float, shift: float) -> Convolution:
        """Return scale M + shift I, for as many inputs as outputs."""
        kernel = scale * self.kernel.cpu()
        count, _, k, _ = kernel.shape
        kernel[range(count), range(count), k // 2, k // 2] += shift
        size = self.terms**0.5 * (abs(scale) * self.absolute_norm + abs(shift))
        return Convolution(
            kernel, self.size, error=abs(scale) * self.error + rounding(self.terms) * size
        )


LinearMap = Matrix | Convolution


def adjoint_kernel(kernel: Tensor) -> Tensor:  # (out, in, k, k) -> (in, out, k, k)
    """Return the kernel of the adjoint of a zero-padded convolution of stride 1."""
    return kernel.transpose(0, 1).flip(2, 3)


def spectral_norm(weight: Tensor) -> float:  # (..., out, in), real or complex
    """Return an upper bound of the largest singular value of all matrices.

    From a full singular value decomposition, whose computed values err by a modest multiple of
    u times the largest one (Anderson et al., LAPACK Users' Guide, section 4.9); 100 times the
    larger dimension is allowed for here. Computed inside one thread: with another number of them
    LAPACK rounds otherwise, and records state norms to the last digit.
    """
    (values,) = in_threads(torch.linalg.svdvals, [weight])
    largest = float(values.max())
    return largest * (1.0 + 100.0 * max(weight.shape[-2:]) * UNIT)


def enclosing_size(size: tuple[int, int], kernel: Tensor) -> tuple[int, int]:
    """Return a size whose circular convolution contains the zero-padded one at `size`.

    With floor(k/2) more rows and columns, what leaves the image on one side comes back within
    those alone, so the zero-padded map is a block of the circular one and its norm no larger.
    At the image's own size it can be larger.
    """
    k = kernel.shape[-1]
    return max(size[0] + k // 2, k), max(size[1] + k // 2, k)


def circular_norm(kernel: Tensor, size: tuple[int, int]) -> float:  # kernel: (out, in, k, k)
    """Return an upper bound of the norm of the circular convolution of images of `size`.

    Its singular values are those of the kernel's Fourier transform at every frequency (Sedghi,
    Gupta, Long 2019).

    Raises:
        ValueError: `size` is smaller than the kernel, which a transform would cut.
    """
    if min(size) < kernel.shape[-1]:
        raise ValueError(f"the size must be at least as large as the kernel, but got {size}")
    # Real kernels: frequencies come in conjugate pairs, with equal singular values.
    response = torch.fft.rfft2(kernel.double(), s=size).permute(2, 3, 0, 1)
    spread = float(kernel.double().abs().sum(dim=(2, 3)).norm())
    # A transform of N numbers errs by a few log2 N units of their absolute sum.
    return spectral_norm(response) + 64.0 * (size[0] * size[1]).bit_length() * UNIT * spread


def _part(weight: Tensor, change: str) -> Tensor:
    return {"absolute": Tensor.abs, "positive": F.relu, "negative": lambda w: -F.relu(-w)}[change](
        weight
    )
