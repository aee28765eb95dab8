"""A scripted expert with access to the block's pose, which demonstrates for policies without it.

It replans every step: contact and distance of the next push that minimise the time of the approach, the push, and the
best second push. Its only memory is a small preference for the last contact, so that its actions are a function of what
an imitator can observe.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from sim.expert.path import Routes
from sim.expert.plan import Plan, PlanConfig, Planner
from sim.geometry import GOAL_POSE, WORKSPACE_HIGH, WORKSPACE_LOW, transform


@dataclass(frozen=True)
class ExpertConfig:
    """Motion of the pusher: speeds in metres per step (0.1 s); free and pushing speeds are the plan's."""

    plan: PlanConfig = field(default_factory=PlanConfig)
    last_speed: float = 0.002  # at the end of a push
    slowing: float = 0.3  # increase in speed per metre that remains of the push
    lead: float = 2.0  # steps by which the target leads the pusher: the lag of the PD controller, 0.2 s


class Expert:
    """Pushes the T to `goal_pose` (3,): x, y in metres and the angle. Deterministic."""

    def __init__(self, goal_pose: np.ndarray = GOAL_POSE, config: ExpertConfig | None = None) -> None:
        self.config = config or ExpertConfig()
        self.planner = Planner(goal_pose, self.config.plan)
        self._chosen: int | None = None

    def reset(self) -> None:
        """Clear the state of the last episode."""
        self._chosen = None

    def act(self, pusher: np.ndarray, block_pose: np.ndarray) -> np.ndarray:
        """The next target (2,) of the pusher in metres, from its position (2,) and the block's pose (3,).

        The pusher stays where it is if the walls block every side of the block.
        """
        pusher, pose = np.asarray(pusher, float), np.asarray(block_pose, float)
        routes = self.planner.routes(pusher, pose)
        plan = self.planner.plan(pose, routes, self._chosen)
        if plan is None:
            return pusher
        self._chosen = plan.contact
        pushing = routes.inside[plan.contact]
        step = self._push(pusher, pose, plan) if pushing else self._walk(pusher, pose, routes, plan)
        return np.clip(pusher + self.config.lead * step, WORKSPACE_LOW, WORKSPACE_HIGH)

    def _push(self, pusher: np.ndarray, pose: np.ndarray, plan: Plan) -> np.ndarray:
        """Displacement (2,) at or close to a contact, slowing towards the end of the push."""
        speed = min(self.config.slowing * plan.distance + self.config.last_speed, self.config.plan.push_speed)
        ahead = self.planner.pushes.apply(pose, np.array(plan.contact), np.array(speed))
        step = transform(self.planner.map.places[[plan.contact]], ahead)[0] - pusher
        return step * min(1.0, speed / max(float(np.linalg.norm(step)), 1e-9))

    def _walk(self, pusher: np.ndarray, pose: np.ndarray, routes: Routes, plan: Plan) -> np.ndarray:
        """Displacement (2,) on the way to a contact's approach point."""
        waypoints = transform(routes.path(plan.contact)[:-1], pose)
        return _along(waypoints, self.config.plan.free_speed) - pusher


def _along(waypoints: np.ndarray, distance: float) -> np.ndarray:
    """The point (2,) that lies `distance` along a polyline (K, 2), or its end."""
    for start, end in itertools.pairwise(waypoints):
        length = float(np.linalg.norm(end - start))
        if distance <= length:
            return start + (end - start) * (distance / max(length, 1e-12))
        distance -= length
    return waypoints[-1]
