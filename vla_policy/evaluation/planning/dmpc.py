"""Diffusion-MPC around a checkpoint's policy, from configuration."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from sim.objectives import make_objective
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE, InputError

if TYPE_CHECKING:
    from vla_policy.models import DiffusionPolicy
    from vla_policy.world_model.diffusion_mpc import DiffusionMPC

PLANNERS = ("none", "dmpc")


@dataclass
class PlannerConfig:
    """Which of a policy's proposals is played."""

    name: str = "none"  # none: the only one | dmpc: the best of several, by what is imagined to follow
    dynamics: str | None = None  # dmpc: folder of a training with dynamics=dmpc
    samples: int = 32  # proposals for each chunk
    objective: str = "progress"
    """progress | keep_out (of planner.disc) | gentle (smooth commands) | random (the control)"""
    goal: list[float] | None = None  # x, y in metres and the angle that the block shall reach; null: PushT's
    disc: list[float] | None = None
    """x, y and radius in metres of where the pusher must not be: keep_out avoids it, and who touches it is counted"""

    def __post_init__(self) -> None:
        if self.name not in PLANNERS:
            raise InputError(f"planner: expected one of {list(PLANNERS)}, found {self.name!r}")
        changed = [option.name for option in fields(self)[1:] if getattr(self, option.name) != option.default]
        if self.name == "none" and changed:
            raise InputError(f"planner: expected planner=dmpc with planner.{changed[0]}, found none")
        if self.name == "dmpc" and self.dynamics is None:
            raise InputError("planner.dynamics: expected the folder of dynamics, found none")
        make_objective(self.objective, self.goal, self.disc)  # report a mistake before anything is loaded


def planned(policy: DiffusionPolicy, config: PlannerConfig) -> DiffusionMPC:
    """The planner around a policy; `InputError` if the dynamics do not fit it."""
    from vla_policy.world_model.diffusion_mpc import DiffusionMPC
    from vla_policy.world_model.dynamics import Dynamics

    assert config.dynamics is not None
    dynamics = Dynamics.from_pretrained(config.dynamics).to(policy.device)
    if missing := {STATE, ENVIRONMENT_STATE} - set(dynamics.config.state_keys):
        raise InputError(
            f"planner.dynamics: expected dynamics of what objectives look at, found none of {sorted(missing)}"
        )
    objective = make_objective(config.objective, config.goal, config.disc)
    return DiffusionMPC(policy, dynamics, objective, config.samples)
