"""An exponential moving average of the weights, which is what is evaluated and saved."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def ema_decay(step: int, power: float, max_decay: float) -> float:
    """Decay after `step` updates, 1 - (1 + step)^-power up to `max_decay`: short memory first, long memory later.

    The schedule of Diffusion Policy (Chi et al. 2023) with inverse gamma 1.
    """
    return min(max_decay, 1.0 - (1.0 + step) ** -power)


def averaged_copy(module: Module) -> Module:
    """A copy to hold the average, in evaluation mode and without gradients."""
    return copy.deepcopy(module).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * module, parameter by parameter; buffers are copied as they are."""
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1.0 - decay)
    for mine, theirs in zip(average.buffers(), module.buffers(), strict=True):
        mine.copy_(theirs)
