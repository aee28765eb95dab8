"""Curvature against matrices that are known."""

import numpy as np
import pytest
import torch
from torch import nn

from vla_policy.evaluation.generalization.flatness import (
    effective_dimension,
    hessian_product,
    leading_eigenvalues,
    trace,
)


def quadratic(size: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric matrix with known eigenvalues."""
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.normal(size=(size, size)))[0]
    values = np.geomspace(0.01, 100, size)
    return (basis * values) @ basis.T, values


def test_the_hessian_of_a_quadratic_is_its_matrix() -> None:
    matrix, values = quadratic()
    weights = nn.Parameter(torch.randn(8, 5)), nn.Parameter(torch.zeros(3))  # the last one is not used

    def loss() -> torch.Tensor:
        flat = weights[0].flatten()
        return 0.5 * flat @ torch.from_numpy(matrix).float() @ flat

    product = hessian_product(loss, weights)
    vector = np.random.default_rng(1).normal(size=43).astype(np.float32)
    np.testing.assert_allclose(product(vector), np.append(matrix @ vector[:40], np.zeros(3)), rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(leading_eigenvalues(product, 43, 3), values[::-1][:3], rtol=2e-2)
    mean, error = trace(product, 43, draws=200)
    assert abs(mean - values.sum()) < 4 * error < 0.5 * values.sum()


def test_a_network_agrees_with_torch() -> None:
    torch.manual_seed(0)
    network, x, y = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(16, 3), torch.randn(16, 1)
    parameters = list(network.parameters())
    product = hessian_product(lambda: (network(x) - y).square().mean(), parameters)
    size = sum(value.numel() for value in parameters)
    matrix = np.stack([product(row) for row in np.eye(size, dtype=np.float32)])
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5)
    expected = np.linalg.eigvalsh(matrix)[::-1]
    np.testing.assert_allclose(leading_eigenvalues(product, size, 2), expected[:2], rtol=2e-2)


def test_the_effective_dimension_counts_directions_that_data_determines() -> None:
    assert effective_dimension([1e9, 1e9, 1.0, 0.0, -3.0], 1.0) == pytest.approx(2.5)


def test_fused_attention_is_differentiated_twice() -> None:
    torch.manual_seed(0)
    weights = nn.Parameter(torch.randn(1, 1, 4, 8))

    def loss() -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(weights, weights, weights).square().sum()

    expected = torch.autograd.functional.hvp(
        lambda w: ((w @ w.transpose(-1, -2) / 8**0.5).softmax(-1) @ w).square().sum(), weights, torch.ones(1, 1, 4, 8)
    )[1]
    product = hessian_product(loss, [weights])(np.ones(32, np.float32))
    np.testing.assert_allclose(product, expected.flatten(), rtol=1e-3, atol=1e-4)
