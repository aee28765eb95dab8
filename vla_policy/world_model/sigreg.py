"""SIGReg: how far latents are from an isotropic Gaussian (LeJEPA, Balestriero & LeCun 2025, arXiv 2511.08544).

Every one-dimensional projection of an isotropic Gaussian is a standard normal, whose characteristic function is
exp(-t^2 / 2); the Epps-Pulley statistic is the weighted squared distance of the empirical one from it.
"""

from __future__ import annotations

import torch
from torch import Tensor

KNOTS = 17
FARTHEST = 3.0  # knots lie on [0, 3]; the integrand is symmetric
PAPER_BATCH = 128


def epps_pulley(x: Tensor) -> Tensor:
    """The statistic T of projections (..., B, M), over B: (..., M).

    T = B * sum_k w_k [(mean cos(t_k x) - exp(-t_k^2 / 2))^2 + (mean sin(t_k x))^2] with trapezoidal weights, doubled
    for the negative half, times exp(-t_k^2 / 2). About 1.05 for a Gaussian sample, 0.402 B if everything is zero.
    """
    knots = torch.linspace(0.0, FARTHEST, KNOTS, device=x.device)
    gaussian = torch.exp(-0.5 * knots**2)
    weights = torch.full_like(knots, 2 * FARTHEST / (KNOTS - 1))
    weights[[0, -1]] /= 2
    angles = x[..., None] * knots
    error = (angles.cos().mean(-3) - gaussian).square() + angles.sin().mean(-3).square()
    return x.shape[-2] * (error @ (weights * gaussian))


def sigreg(latents: Tensor, generator: torch.Generator, directions: int = 1024) -> Tensor:
    """SIGReg of latents (T, B, D), each time step by itself, averaged over time and fresh random unit directions.

    Normalised to the paper's batch of 128, so that its weight 0.1 means the same at any batch size B.
    """
    with torch.autocast(latents.device.type, enabled=False):
        drawn = torch.randn(latents.shape[-1], directions, generator=generator, device=generator.device)
        unit = torch.nn.functional.normalize(drawn, dim=0).to(latents.device)
        statistic = epps_pulley(latents.float() @ unit)
    return PAPER_BATCH / latents.shape[-2] * statistic.mean()
