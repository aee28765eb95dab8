"""Observations beside the demonstrated path, with the demonstrated actions: how to come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla_policy.data import Windows
from vla_policy.interfaces import STATE, InputError

SHIFTED = 0.5  # of the samples; the others say what to do on the path


class StateShift:
    """Shifts the observed states (B, n, D) of half of a batch's windows, all n of a window alike, by a normal offset
    of standard deviation `strength`, in units of each channel's standard deviation over the data.

    The actions stay where they are, so that a chunk leads from the shifted state back to the demonstrated path. It
    teaches with the robot's own state alone what DART (Laskey et al. 2017) teaches with disturbed demonstrations;
    pictures stay as they are and contradict the state by as much. Commands have to be positions: a velocity beside the
    path would not lead back.
    """

    def __init__(self, strength: float, windows: Windows, seen: Sequence[str]) -> None:
        """`seen` are the keys that the policy sees."""
        if STATE not in seen:
            raise InputError(f"data.state_noise: expected {STATE} among policy.observation_keys, found none")
        state, action = windows.interface.observations[STATE], windows.interface.action
        if state.names != action.names or state.units != action.units:
            raise InputError(
                f"data.state_noise: expected actions that are positions of the state's channels {list(state.names)}, "
                f"found {list(action.names)} {list(action.units)}"
            )
        self.deviation = strength * windows.columns[STATE].std(0)  # (D,)

    def offsets(self, states: Tensor, generator: np.random.Generator) -> Tensor:
        """What is added to states (B, n, D): (B, 1, D)."""
        drawn = self.deviation * generator.standard_normal((len(states), 1, states.shape[-1]))
        drawn *= generator.random((len(states), 1, 1)) < SHIFTED
        return torch.from_numpy(drawn).to(states)

    def __call__(self, batch: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Tensor]:
        return {STATE: batch[STATE] + self.offsets(batch[STATE], generator)}
