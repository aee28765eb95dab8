"""The schedule of the averaged weights, which are what is evaluated and saved."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def ema_decay(step: int, power: float, max_decay: float) -> float:
    """Decay after `step` updates, 1 - (1 + step)^-power up to `max_decay`: short memory first, long memory later.

    The schedule of Diffusion Policy (Chi et al. 2023) with inverse gamma 1.
    """
    return min(max_decay, 1.0 - (1.0 + step) ** -power)


def averaged_model(model: nn.Module, power: float, max_decay: float) -> AveragedModel:
    """A copy of `model` in `.module`, in evaluation mode, whose `update_parameters(model)` follows `ema_decay`.

    Buffers are copied as they are. `n_averaged` counts from 1, or the first update would be a plain copy.
    """

    def update(averages: Tensors, parameters: Tensors, n_averaged: Tensor | int) -> None:
        torch._foreach_lerp_(averages, parameters, 1.0 - ema_decay(int(n_averaged), power, max_decay))

    average = AveragedModel(model, multi_avg_fn=torch.no_grad()(update)).eval().requires_grad_(False)
    average.n_averaged.fill_(1)
    return average
