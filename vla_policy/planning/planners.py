"""Planners around a policy, from configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vla_policy.interfaces import ActionChunk, InputError, Interface, Objective, Observation, Policy
from vla_policy.planning.options import STEERING, PlannerConfig, make_objective
from vla_policy.rollouts.lookahead import Proposals

if TYPE_CHECKING:
    from vla_policy.models import DiffusionPolicy
    from vla_policy.world_model.diffusion_mpc import DiffusionMPC
    from vla_policy.world_model.foresight import Foresight
    from vla_policy.world_model.trajectories.model import TrajectoryModel


class Oracle:
    """A `Policy` that proposes `samples` chunks, of which the simulator's process plays the one that turns out best.

    Diffusion-MPC would do this with the same proposals and objective if it imagined without error.
    """

    def __init__(self, policy: DiffusionPolicy, objective: Objective, samples: int) -> None:
        self.policy, self.objective, self.samples = policy, objective, samples
        self.interface: Interface = policy.interface
        self.n_obs_steps, self.n_action_steps = policy.n_obs_steps, policy.n_action_steps

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        """The proposals for each history; equal generators give equal ones."""
        if not histories:
            return []
        from vla_policy.world_model.diffusion_mpc import propose

        chunks, _ = propose(self.policy, self.policy.batch(histories), generator, self.samples)
        dt = 1.0 / self.interface.fps
        candidates = chunks.double().cpu().numpy()
        if not np.isfinite(candidates).all():
            raise InputError("planner: expected finite actions, found others; weights are damaged")
        return [
            Proposals(rows[0], history[-1].t, dt, candidates=rows, objective=self.objective)
            for rows, history in zip(candidates, histories, strict=True)
        ]


def planned(policy: DiffusionPolicy, config: PlannerConfig, simulated: Interface | None = None) -> Policy:
    """The planner around a policy, or the policy itself; `simulated` is what a simulator shows, an oracle's future.

    `InputError` if what `config` names does not fit the policy.
    """
    if config.name == "none":
        return policy
    if config.name in STEERING:
        raise InputError(f"planner: expected a checkpoint of a training with trajectory={config.name}, found a policy")
    if config.name == "oracle":
        if simulated is None:
            raise InputError(
                "planner: expected none, dmpc or foresight on a robot, found 'oracle', which tries in the simulator"
            )
        return Oracle(policy, make_objective(config, simulated), config.samples)
    return foresight(policy, config) if config.name == "foresight" else diffusion_mpc(policy, config)


def steered(agent: TrajectoryModel, config: PlannerConfig) -> Policy:
    """An agent that plans what `config` wants; `InputError` if it cannot want that."""
    from vla_policy.planning.gradients import differentiable
    from vla_policy.world_model.trajectories.decision_diffuser import DecisionDiffuser
    from vla_policy.world_model.trajectories.diffuser import Diffuser

    if config.name not in ("none", agent.config.kind):
        raise InputError(f"planner: expected none or {agent.config.kind} for such an agent, found {config.name!r}")
    if config.name == "none":
        return agent
    assert config.guidance is not None
    if isinstance(agent, Diffuser):
        agent.steer(differentiable(make_objective(config, agent.interface)), config.guidance)
    elif isinstance(agent, DecisionDiffuser):
        assert config.target_return is not None
        agent.steer(config.target_return, config.guidance)
    return agent


def foresight(policy: DiffusionPolicy, config: PlannerConfig) -> Foresight:
    """The policy asked where its chunk may begin; `InputError` if the dynamics are not of all that it acts on."""
    from vla_policy.world_model.dynamics import Dynamics
    from vla_policy.world_model.foresight import Foresight

    assert config.dynamics is not None
    return Foresight(policy, Dynamics.from_pretrained(config.dynamics).to(policy.device), config.samples)


def diffusion_mpc(policy: DiffusionPolicy, config: PlannerConfig) -> DiffusionMPC:
    """Diffusion-MPC with the dynamics that `config` names; `InputError` if they or the objective do not fit."""
    from vla_policy.world_model.diffusion_mpc import DiffusionMPC
    from vla_policy.world_model.dynamics import Dynamics

    assert config.dynamics is not None
    dynamics = Dynamics.from_pretrained(config.dynamics).to(policy.device)
    return DiffusionMPC(policy, dynamics, make_objective(config, dynamics.interface), config.samples)
