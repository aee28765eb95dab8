"""Diagnosis of latent collapse, the failure mode of JEPAs in which all images map to one point."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vla_policy.world_model.sigreg import epps_pulley

LEAST_RANK = 3.0  # directions: a position in the plane and one more quantity
LEAST_VARIANCE = 0.01  # SIGReg's target is 1


@dataclass(frozen=True)
class LatentHealth:
    """`rank`: exp of the entropy of the covariance's normalised eigenvalues, 1 to D (Roy & Vetterli 2007); `variance`:
    mean over the dimensions; `distance` (D,): how far each principal direction, standardised, is from a Gaussian, the
    widest direction first: the Epps-Pulley statistic a sample, about 1 / N if it is one.
    """

    rank: float
    variance: float
    distance: list[float]

    @property
    def collapsed(self) -> bool:
        return self.rank < LEAST_RANK or self.variance < LEAST_VARIANCE

    def __str__(self) -> str:
        return f"effective rank {self.rank:.1f} of {len(self.distance)}, variance {self.variance:.3g}"


def latent_health(latents: Tensor) -> LatentHealth:
    """Of latents (N, D), N well above D; in float64, where a collapsed covariance still has a spectrum."""
    z = latents.double()
    z = z - z.mean(0)
    variances, directions = torch.linalg.eigh(z.T @ z / max(len(z) - 1, 1))
    variances = variances.clamp(min=0)
    share = variances / variances.sum().clamp(min=1e-30)
    entropy = -(share * share.clamp(min=1e-30).log()).sum()
    standard = (z @ directions) / variances.sqrt().clamp(min=1e-12)
    statistic = epps_pulley(standard.float()) / len(z)
    return LatentHealth(float(entropy.exp()), float(variances.mean()), statistic.flip(0).tolist())
