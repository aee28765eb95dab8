"""Observations as the tensors that a policy reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vla_policy.interfaces import InputError, Interface, Observation


def batch_of(histories: Sequence[Sequence[Observation]], interface: Interface, n_obs_steps: int) -> dict[str, Any]:
    """Histories of `n_obs_steps` observations, oldest first, as tensors (B, n_obs_steps, ...) by key, and under `task`
    the newest instructions; `InputError` for observations that do not fit the interface.
    """
    for history in histories:
        if len(history) != n_obs_steps:
            raise InputError(f"history: expected {n_obs_steps} observations, found {len(history)}")
        for observation in history:
            observation.check(interface)
    batch: dict[str, Any] = {"task": [history[-1].task for history in histories]}
    for key, feature in interface.observations.items():
        values = [[observation.values[key] for observation in history] for history in histories]
        batch[key] = torch.from_numpy(np.asarray(values, np.uint8 if feature.dtype == "image" else np.float32))
    return batch
