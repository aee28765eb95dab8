"""What a policy is worth on held-out episodes, without a simulator."""

from __future__ import annotations

import numpy as np
import torch

from vla_policy.data import Windows
from vla_policy.interfaces import ACTION
from vla_policy.models import DiffusionPolicy

BATCH = 128


@torch.no_grad()
def validate(policy: DiffusionPolicy, windows: Windows, count: int, seed: int = 0) -> dict[str, float]:
    """Loss, and the mean absolute error of sampled actions (in their own units) against holding the last one.

    Always the same `count` windows and the same noise. The error counts the actions that would be executed; holding
    repeats the action before them, which windows of one observation step do not contain.
    """
    chosen = np.random.default_rng(seed).permutation(len(windows))[:count]
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, float] = {}
    for first in range(0, len(chosen), BATCH):
        batch = windows.__getitems__(chosen[first : first + BATCH])
        loss, _ = policy.loss(batch, generator)
        begin = policy.n_obs_steps - 1
        due = slice(begin, begin + policy.n_action_steps)
        actions = batch[ACTION][:, due]
        values = {
            "val/loss": float(loss),
            "val/action_error": float((policy.sample(batch, generator)[:, due].cpu() - actions).abs().mean()),
        }
        if begin:
            values["val/hold_error"] = float((batch[ACTION][:, begin - 1 : begin] - actions).abs().mean())
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value * len(actions)
    return {name: value / len(chosen) for name, value in sums.items()}
