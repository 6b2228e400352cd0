"""Norm bounds: never below the norm of the map that runs, and close to it."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

import deqcert
from deqcert.models.linear_maps import (
    Convolution,
    Matrix,
    adjoint_kernel,
    circular_norm,
    enclosing_size,
)

SIZES = [(1, 1), (2, 3), (4, 4), (5, 2), (7, 6)]


def dense(map_: Convolution) -> np.ndarray:
    """The matrix of the zero-padded map, column by column."""
    channels = map_.kernel.shape[1]
    basis = torch.eye(channels * map_.size[0] * map_.size[1], dtype=torch.float64)
    images = basis.reshape(-1, channels, *map_.size)
    padding = map_.kernel.shape[-1] // 2
    return torch.nn.functional.conv2d(images, map_.kernel, padding=padding).flatten(1).T.numpy()


def kernels(count: int, widths: tuple[int, ...] = (1, 3, 5)):
    generator = torch.Generator().manual_seed(3)
    for trial in range(count):
        k = widths[trial % len(widths)]
        out, into = 1 + trial % 3, 1 + trial % 2
        yield torch.randn(out, into, k, k, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
def test_zero_padded_norms_are_bounded_and_nearly_met(size):
    for kernel in kernels(12):
        map_ = Convolution(kernel, size)
        exact = np.linalg.svd(dense(map_), compute_uv=False)[0]
        assert exact <= map_.norm
        absolute = np.linalg.svd(abs(dense(map_)), compute_uv=False)[0]
        assert absolute <= map_.absolute_norm
        if min(size) >= 6:
            assert map_.norm <= 1.5 * exact


def test_the_circular_operator_of_the_same_size_underestimates():
    """The second difference (-1, 1, -1) on rows of 3 pixels.

    Circular, its gains are 1 - 2 cos(2 pi j / 3): at most 2. Zero-padded it is a tridiagonal matrix
    with gains up to 1 + sqrt 2.
    """
    kernel = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    kernel[0, 0, 1] = torch.tensor([-1.0, 1.0, -1.0])
    map_ = Convolution(kernel, (3, 3))
    exact = np.linalg.svd(dense(map_), compute_uv=False)[0]
    assert exact == pytest.approx(1 + np.sqrt(2))
    assert circular_norm(kernel, (3, 3)) == pytest.approx(2.0)
    assert enclosing_size((3, 3), kernel) == (4, 4)
    assert exact <= map_.norm <= 3.0 + 1e-9  # 1 - 2 cos(2 pi 2 / 4)


def test_circular_norms_refuse_images_smaller_than_the_kernel():
    with pytest.raises(ValueError, match="at least as large"):
        circular_norm(torch.ones(1, 1, 5, 5), (5, 4))


def test_the_circular_operator_underestimates_at_real_sizes_too():
    """Tap by tap: a random search finds 5x5 kernels that lose up to several percent at 8x8."""
    generator = torch.Generator().manual_seed(0)
    worst = 1.0
    for _ in range(200):
        kernel = torch.randn(1, 1, 5, 5, generator=generator, dtype=torch.float64)
        map_ = Convolution(kernel, (8, 8))
        exact = np.linalg.svd(dense(map_), compute_uv=False)[0]
        worst = min(worst, circular_norm(kernel, (8, 8)) / exact)
        assert exact <= map_.norm
    assert worst < 0.999


@pytest.mark.parametrize("size", SIZES)
def test_maps_compute_what_they_say(size):
    generator = torch.Generator().manual_seed(5)
    for kernel in kernels(6):
        map_ = Convolution(kernel, size)
        x = torch.randn(3, kernel.shape[1], *size, generator=generator, dtype=torch.float64)
        expected = x.flatten(1).numpy() @ dense(map_).T
        np.testing.assert_allclose(map_.apply(x).flatten(1).numpy(), expected, atol=1e-12)
        np.testing.assert_array_equal(dense(map_.transposed()), dense(map_).T)
        torch.testing.assert_close(adjoint_kernel(adjoint_kernel(kernel)), kernel)


def test_long_batches_are_convolved_in_parts():
    kernel = torch.randn(4, 4, 3, 3, dtype=torch.float64)
    x = torch.randn(300, 4, 28, 28, dtype=torch.float64)
    expected = torch.nn.functional.conv2d(x[290:], kernel, padding=1)
    torch.testing.assert_close(Convolution(kernel, (28, 28)).apply(x)[290:], expected)


def test_parts_and_shifts():
    kernel = next(kernels(1, (3,))).expand(2, 2, 3, 3).contiguous()
    for map_, matrix in (
        (Convolution(kernel, (4, 3)), dense(Convolution(kernel, (4, 3)))),
        (Matrix(kernel[0, 0]), kernel[0, 0].numpy()),
    ):
        as_matrix = dense if isinstance(map_, Convolution) else lambda m: m.weight.numpy()
        shifted = map_.plus_identity(-0.3, 1.7)
        np.testing.assert_allclose(as_matrix(shifted), 1.7 * np.eye(len(matrix)) - 0.3 * matrix)
        assert shifted.error > 0
        assert (as_matrix(map_.mapped("positive")) == np.maximum(matrix, 0)).all()
        assert (as_matrix(map_.mapped("negative")) == np.minimum(matrix, 0)).all()
        assert (as_matrix(map_.mapped("absolute")) == abs(matrix)).all()


@pytest.mark.parametrize("count", [3, 40, 300])
def test_rounding_stays_within_its_bound(count):
    """Against 64-bit mantissas, on sums that cancel."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((20, count)) * 10.0 ** rng.uniform(-6, 6, (20, count))
    x = rng.standard_normal((50, count)) * 10.0 ** rng.uniform(-3, 3, (50, 1))
    map_ = Matrix(torch.from_numpy(weight))
    exact = x.astype(np.longdouble) @ weight.astype(np.longdouble).T
    got = map_.apply(torch.from_numpy(x)).numpy()
    off = np.linalg.norm((got - exact).astype(float), axis=1)
    assert (off <= map_.slip * np.linalg.norm(x, axis=1)).all()
    assert off.max() > 0


def test_power_iteration_falls_short_where_our_bound_does_not():
    """Two nearly equal singular values: the estimate is below the norm, whatever its start."""
    weight = torch.diag(torch.tensor([1.0, 0.999, 0.5], dtype=torch.float64))
    v = torch.tensor([0.1, 1.0, 1.0], dtype=torch.float64)
    for _ in range(50):
        v = torch.nn.functional.normalize(weight.T @ (weight @ v), dim=0)
    assert float((weight @ v).norm()) < 1.0 - 5e-4
    assert Matrix(weight).norm >= 1.0


def test_no_proof_imports_an_estimate():
    """What bounds and certificates are made of imports nothing that iterates towards a norm."""
    root = Path(deqcert.__file__).parent
    files = [*root.glob("deterministic/*.py"), *root.glob("models/mondeq*.py")]
    files += [root / f"models/{name}.py" for name in ("linear_maps", "proofs")]
    files.append(root / "solvers/splitting.py")
    assert len(files) >= 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.ImportFrom, ast.Import)):
                assert "spectrum" not in ast.dump(node), file
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("spectral_norm_", "eigs", "lobpcg", "svds"), file
                assert "power_iteration" not in node.attr, file


def test_norms_are_the_same_to_the_bit_for_any_number_of_threads():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(40, width, generator=generator) for width in (784, 785, 900)]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            found.append([Matrix(weight).norm for weight in weights])
    finally:
        torch.set_num_threads(before)
    assert found == [found[0]] * 4
