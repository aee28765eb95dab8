"""Chunks that continue what an arm is doing: what is known of a chunk before it is sampled, and guidance towards it.

Shapes: B observations, S draws an observation, T predicted rows, D action dimensions. Actions are normalised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vla_policy.conf.policy_config import PolicyConfig
from vla_policy.data import Normalizer
from vla_policy.interfaces import ACTION, Given, InputError
from vla_policy.models.chunks import ChunkCodec, Origin

if TYPE_CHECKING:
    from vla_policy.models.objectives import Level, Predict

STRONGEST = 5.0  # RTC's beta: the weight of the guidance at most


@dataclass(frozen=True)
class Known:
    """Rows that are known of chunks: `rows` (B, T, D), 0 where nothing is; `frozen` (B, T) bool, those that will have
    been executed; `weights` (B, T) of the guidance towards all.
    """

    rows: Tensor
    frozen: Tensor
    weights: Tensor

    @property
    def held(self) -> tuple[Tensor, Tensor]:
        """The frozen rows (B, 1, T, D), and which these are (B, 1, T), for all draws of an observation."""
        return self.rows[:, None], self.frozen[:, None]


def known_rows(
    given: Sequence[Given | None], origin: Origin, codec: ChunkCodec, normalizer: Normalizer, device: torch.device
) -> Known:
    """What a policy knows of its chunks' rows, whose actions refer to an `origin`.

    A policy that was trained with given rows takes at most `prefix_steps` of them.
    """
    config = codec.config
    require_continuing(config)
    past = config.past_rows
    size = next(len(entry.rows[0]) for entry in given if entry is not None)
    rows = torch.zeros(len(given), config.rows, size)
    frozen = torch.zeros(len(given), config.rows, dtype=torch.bool)
    weights = torch.zeros(len(given), config.rows)
    for index, entry in enumerate(given):
        if entry is not None:
            count = min(len(entry.rows), config.rows - past)
            firm = min(entry.frozen, count, config.prefix_steps or count)
            rows[index, past : past + count] = torch.from_numpy(np.asarray(entry.rows[:count], np.float32))
            frozen[index, past : past + firm] = True
            weights[index, past : past + count] = soft_mask(count, min(entry.frozen, count))
    normalized = normalizer.normalize(ACTION, codec.relative(rows.to(device), origin))
    frozen, weights = frozen.to(device), weights.to(device)
    return Known(normalized.masked_fill(weights[..., None] == 0, 0.0), frozen, weights)


def require_continuing(config: PolicyConfig, delay: int = 0) -> None:
    """`InputError` unless a policy can continue what is executed during a `delay` in control periods."""
    if config.action_basis != "time":
        raise InputError(
            f"chunking: expected another one than rtc with policy.action_basis={config.action_basis}, found rtc"
        )
    if config.prefix_steps and delay > config.prefix_steps:
        expected = f"at most policy.prefix_steps, {config.prefix_steps}, with rtc"
        raise InputError(f"delay: expected {expected}, found {delay}")


def soft_mask(count: int, frozen: int) -> Tensor:
    """Weights (count,) of known rows: 1 for the frozen ones, then exponentially less the later a row is due, as it may
    still change (RTC's equation 5).
    """
    left = (count - torch.arange(count)) / (count - frozen + 1)
    return torch.where(torch.arange(count) < frozen, 1.0, left * torch.expm1(left) / (math.e - 1))


def exactly(actions: np.ndarray, given: Given | None, config: PolicyConfig) -> np.ndarray:
    """A sampled chunk (T, D) from the newest observation on, whose frozen rows are those given to the last bit."""
    if given is None:
        return actions
    count = min(given.frozen, len(actions), config.prefix_steps or len(actions))
    return np.concatenate([given.rows[:count], actions[count:]])


def drawn_prefix(shape: torch.Size, past: int, most: int, generator: torch.Generator) -> Tensor:
    """Which rows of chunks (B, S, T) are given in training: 0 to `most`, equally likely, after the first `past`
    (training-time RTC, Black et al. 2025, arXiv 2512.05964).
    """
    count = torch.randint(most + 1, shape[:2], generator=generator, device=generator.device)[..., None]
    row = torch.arange(shape[2], device=generator.device) - past
    return (row >= 0) & (row < count)


def guided(predict: Predict, levels: Sequence[Level], known: Known) -> Predict:
    """A prediction that leads to chunks near the known rows: pseudo-inverse guidance (Song et al. 2023, PiGDM) as in
    real-time chunking (Black et al. 2025, arXiv 2506.07339, equations 2 to 4).

    RTC is stated for x_t = t data + (1 - t) noise. Any x = a data + s noise is such an x_t, times a + s, at
    t = a / (a + s): so the same guidance serves diffusion.
    """
    rows, weights = known.rows[:, None], known.weights[:, None, :, None]

    def toward(x: Tensor, k: int) -> Tensor:
        level = levels[k]
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            prediction = predict(x, k)
            data = level.of_x * x + level.of_prediction * prediction
            error = (weights * (rows - data)).detach()
            (gradient,) = torch.autograd.grad(data, x, error)
        t = level.data / (level.data + level.noise)
        change = (1 - t) * guidance_weight(t) * (level.data + level.noise) * gradient  # of the estimated data
        return prediction.detach() + change / level.of_prediction

    return toward


def guidance_weight(t: float) -> float:
    """min(beta, (1 - t) / (t r^2)) with 1 / r^2 = (t^2 + (1 - t)^2) / (1 - t)^2; t runs from noise 0 to data 1."""
    return STRONGEST if t <= 0 else min(STRONGEST, (t**2 + (1 - t) ** 2) / (t * (1 - t)))


def held(predict: Predict, known: Known) -> Predict:
    """A prediction that sees the frozen rows as they will be executed, at every step."""
    rows, frozen = known.held
    return lambda x, k: predict(torch.where(frozen[..., None], rows, x), k)
