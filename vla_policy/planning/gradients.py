"""Objectives in torch, whose gradients guide what Diffuser plans.

States are (..., F, D) by key, of F steps; values are (...).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vla_policy.interfaces import ENVIRONMENT_STATE, STATE, InputError, Objective
from vla_policy.planning.objectives import LearnedReturn, Reach, Sum

if TYPE_CHECKING:
    from sim.objectives import Progress
    from vla_policy.world_model.trajectories.diffuser import Value


def differentiable(objective: Objective) -> Value:
    """The same wish in torch; `InputError` for one without a gradient, such as a disc to keep out of."""
    if isinstance(objective, Sum):
        parts = [differentiable(part) for part in objective.parts]
        return lambda states: torch.stack([part(states) for part in parts]).sum(0)
    if isinstance(objective, LearnedReturn):
        return _return(objective)
    if isinstance(objective, Reach):
        return _reach(objective)

    from sim.objectives import Progress  # who wants it has the simulator

    if isinstance(objective, Progress):
        return _progress(objective)
    raise InputError(
        "planner.objective: expected some of ['progress', 'return', 'reach'] with planner=diffuser, which needs their "
        f"gradient, found {type(objective).__name__}"
    )


def _return(objective: LearnedReturn) -> Value:
    layers = [[torch.from_numpy(part) for part in layer] for layer in objective.layers]

    def value(states: Mapping[str, Tensor]) -> Tensor:
        x = torch.cat([states[key] for key in objective.keys], dim=-1)
        for weight, bias in layers[:-1]:
            x = F.silu(F.linear(x, weight.to(x), bias.to(x)))
        weight, bias = layers[-1]
        returns = F.linear(x, weight.to(x), bias.to(x))[..., 0].sigmoid()
        steps = torch.arange(1, returns.shape[-1] + 1, device=x.device)
        return (returns * objective.discount**steps).mean(-1)

    return value


def _reach(objective: Reach) -> Value:
    def value(states: Mapping[str, Tensor]) -> Tensor:
        offsets = states[STATE] - states[STATE].new_tensor(objective.target)
        return -torch.linalg.vector_norm(offsets, dim=-1).mean(-1)

    return value


def _progress(objective: Progress) -> Value:
    from sim.geometry import T_CORNERS, transform

    corners, goal = torch.from_numpy(T_CORNERS), torch.from_numpy(transform(T_CORNERS, np.array(objective.goal)))

    def value(states: Mapping[str, Tensor]) -> Tensor:
        pose = states[ENVIRONMENT_STATE]
        cos, sin = F.normalize(pose[..., 2:], dim=-1).unbind(-1)
        rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
        found = corners.to(pose) @ rotation.mT + pose[..., None, :2]
        return -torch.linalg.vector_norm(found - goal.to(pose), dim=-1).mean((-2, -1))

    return value
