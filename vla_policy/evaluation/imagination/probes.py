"""Probes of the true state in latents: linear regression and a small network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vla_policy.evaluation.statistics import mean_interval

Probe = Callable[[Tensor], Tensor]  # latents (N, D) to values (N, K)


@dataclass(frozen=True)
class Affine:
    """y = x W + b for x (..., F), W (F, K)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def ridge(x: Tensor, y: Tensor, penalty: float = 1e-4) -> Affine:
    """Ridge regression of y (N, K) on x (N, F); `penalty` in units of the inputs' mean variance, 0: least squares."""
    inputs, outputs = x.double(), y.double()
    mean_x, mean_y = inputs.mean(0), outputs.mean(0)
    centred = inputs - mean_x
    gram = centred.T @ centred / len(x)
    gram += penalty * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram, centred.T @ (outputs - mean_y) / len(x))
    return Affine(weight.float(), (mean_y - mean_x @ weight).float())


class SmallMLP(nn.Module):
    """Two hidden layers; inputs and outputs are standardised by the statistics of the training data."""

    def __init__(self, x: Tensor, y: Tensor, hidden: int = 256) -> None:
        super().__init__()
        self.mean_x, self.std_x = x.mean(0), x.std(0).clamp(min=1e-6)
        self.mean_y, self.std_y = y.mean(0), y.std(0).clamp(min=1e-6)
        layers = [nn.Linear(x.shape[1], hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, y.shape[1]))

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = self.mean_y + self.std_y * self.layers((x - self.mean_x) / self.std_x)
        return values


def fit_mlp(
    x: Tensor, y: Tensor, steps: int = 2000, seed: int = 0, on_step: Callable[[], None] | None = None
) -> SmallMLP:
    """The small network fitted to y (N, K) of x (N, F) by AdamW on batches of 256."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    mlp = SmallMLP(x, y)
    optimiser = torch.optim.AdamW(mlp.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (256,), generator=generator)
        loss = ((mlp(x[rows]) - y[rows]) / mlp.std_y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if on_step is not None:
            on_step()
    return mlp.eval().requires_grad_(False)


@dataclass(frozen=True)
class Quantity:
    """A probed quantity: its channels among the probe's outputs, and the distance of two values (N, C) in `unit`."""

    channels: slice
    unit: str
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray]


def millimetres(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances (N,) of positions (N, 2) in metres."""
    return 1000 * np.linalg.norm(a - b, axis=-1)


def degrees(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances (N,) of directions (N, 2), given as unnormalised cosine and sine."""
    cross, dot = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], (a * b).sum(-1)
    return np.abs(np.degrees(np.arctan2(cross, dot)))


def score(probe: Probe, latents: Sequence[Tensor], values: Sequence[np.ndarray], quantity: Quantity) -> dict[str, Any]:
    """Errors over the frames of episodes, the interval of the mean over episodes, and the joint R^2 of the channels."""
    read = [probe(some).numpy()[:, quantity.channels] for some in latents]
    true = [some[:, quantity.channels] for some in values]
    errors = [quantity.distance(a, b) for a, b in zip(read, true, strict=True)]
    everything, each = np.concatenate(errors), [float(some.mean()) for some in errors]
    left = ((np.concatenate(read) - np.concatenate(true)) ** 2).sum()
    total = ((np.concatenate(true) - np.concatenate(true).mean(0)) ** 2).sum()
    return {
        "unit": quantity.unit,
        "median": float(np.median(everything)),
        "mean": float(np.mean(each)),
        "mean_ci95": mean_interval(each),
        "r2": float(1 - left / total) if total > 0 else None,
    }
