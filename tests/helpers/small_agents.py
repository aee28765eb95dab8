"""Small agents that plan trajectories, and windows for them, at PushT's shapes."""

from typing import Any

import torch
from helpers.small_diffusion import pusht_interface

from vla_policy.conf.trajectory_config import TrajectoryConfig
from vla_policy.data import REMAINING
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, STATE
from vla_policy.models import ObjectiveConfig, TransformerConfig
from vla_policy.world_model.trajectories.agents import AGENTS, fit_trajectories
from vla_policy.world_model.trajectories.model import TrajectoryModel


def small_config(kind: str, **changes: Any) -> TrajectoryConfig:
    transformer = TransformerConfig(width=16, depth=1, heads=2, time_width=16)
    sampler = ObjectiveConfig(inference_steps=4, clip_sample=False)
    values = {"future": 6, "n_action_steps": 4, "transformer": transformer, "objective": sampler}
    return TrajectoryConfig(**{"kind": kind, **values, "inverse_width": 64, **changes})


def windows(count: int, config: TrajectoryConfig, seed: int = 0) -> dict[str, Any]:
    """Of a pusher with inertia, whose commands are how its velocity changes; the block turns.

    Its command is `a` beyond its position, and its velocity is `a` more in the next step.
    """
    generator = torch.Generator().manual_seed(seed)
    length = config.n_obs_steps
    commands = 0.02 * torch.randn(count, length, 2, generator=generator)
    velocity = 0.05 * torch.randn(count, 2, generator=generator)
    position = 0.4 + 0.1 * torch.randn(count, 2, generator=generator)
    positions = []
    for step in range(length):
        positions.append(position)
        velocity = velocity + commands[:, step]
        position = position + velocity
    state = torch.stack(positions, dim=1)
    angle = torch.rand(count, 1, generator=generator) + 0.1 * torch.arange(length)
    block = torch.stack([0.4 + 0.1 * angle, 0.1 * angle, angle.cos(), angle.sin()], dim=-1)
    remaining = torch.randint(100, (count,), generator=generator).float()
    return {
        STATE: state,
        ENVIRONMENT_STATE: block,
        ACTION: state + commands,
        REMAINING: remaining,
        "task": [""] * count,
    }


def small_agent(kind: str, seed: int = 0, **changes: Any) -> TrajectoryModel:
    """All weights are random, so that no adaLN-zero gate hides anything."""
    torch.manual_seed(seed)
    config = small_config(kind, **changes)
    agent = AGENTS[config.kind](config, pusht_interface(), fit_trajectories(windows(64, config), config))
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return agent.eval()
