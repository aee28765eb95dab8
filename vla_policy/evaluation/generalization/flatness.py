"""Curvature of a loss at trained weights: leading eigenvalues and trace of its Hessian, never formed as a matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

TOLERANCE = 0.02  # of an eigenvalue, relative
Product = Callable[[np.ndarray], np.ndarray]  # a vector (P,) to the Hessian times it (P,)


def hessian_product(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> Product:
    """The Hessian of `loss()` with respect to `parameters`, as a function of vectors (Pearlmutter 1994).

    `loss` has to be the same function at every call: fixed data, fixed noise, no dropout.
    """
    sizes = [parameter.numel() for parameter in parameters]

    @sdpa_kernel(SDPBackend.MATH)  # fused attention cannot be differentiated twice
    def product(vector: np.ndarray) -> np.ndarray:
        direction = torch.from_numpy(np.asarray(vector, np.float32).ravel().copy()).split(sizes)
        gradients = torch.autograd.grad(loss(), parameters, create_graph=True, allow_unused=True)
        along = torch.stack(
            [
                (gradient * part.to(gradient).view_as(gradient)).sum()
                for gradient, part in zip(gradients, direction, strict=True)
                if gradient is not None
            ]
        ).sum()
        rows = torch.autograd.grad(along, parameters, allow_unused=True)
        flat = [
            torch.zeros(size) if row is None else row.detach().float().cpu().flatten()
            for row, size in zip(rows, sizes, strict=True)
        ]
        return torch.cat(flat).numpy()

    return product


def leading_eigenvalues(product: Product, size: int, count: int, seed: int = 0) -> list[float]:
    """The `count` largest eigenvalues, largest first, by Lanczos' method; fewer if not all converge."""
    operator = LinearOperator((size, size), matvec=product, dtype=np.float32)
    start = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    try:
        values = eigsh(operator, k=count, which="LA", v0=start, tol=TOLERANCE, maxiter=5, return_eigenvectors=False)
    except ArpackNoConvergence as error:  # the small ones lie close together
        values = np.real(error.eigenvalues)
    return sorted((float(value) for value in values), reverse=True)


def trace(product: Product, size: int, draws: int, seed: int = 0) -> tuple[float, float]:
    """Hutchinson's estimate E[v' H v], v of random signs, and its standard error."""
    generator = np.random.default_rng(seed)
    vectors = generator.choice(np.array([-1.0, 1.0], np.float32), size=(draws, size))
    values = [float(vector @ product(vector)) for vector in vectors]
    error = float(np.std(values, ddof=1) / np.sqrt(draws)) if draws > 1 else float("nan")
    return float(np.mean(values)), error


def effective_dimension(eigenvalues: Sequence[float], prior_precision: float) -> float:
    """sum of l / (l + z) over the eigenvalues at hand (Maddox et al. 2020, arXiv 2003.02139): a lower bound."""
    positive = np.clip(np.asarray(eigenvalues, float), 0.0, None)
    return float((positive / (positive + prior_precision)).sum())
