"""A scripted expert that sees the block's pose: what is shown to policies that will have to do without it.

Every step it plans anew, two pushes ahead in the planar model: where to push first and how far, so that the way
there, the push, and what is left for the best second push cost the least time. Nothing but a small preference for the
contact chosen last is remembered, so that what it does is a function of what an imitator can see.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from sim.expert_path import BlockMap, Routes
from sim.geometry import GOAL_POSE, T_CORNERS, WORKSPACE_HIGH, WORKSPACE_LOW, transform
from sim.planar import PlanarModel, Pushes, outline_contacts, pose_distance


@dataclass(frozen=True)
class ExpertConfig:
    """Speeds in metres per step (0.1 s), lengths in metres, costs in steps."""

    free_speed: float = 0.016
    push_speed: float = 0.008
    slow_speed: float = 0.002  # at the end of a push
    slowing: float = 0.3  # speed at the end of a push, per metre that is left
    lead: float = 2.0  # how many steps of motion the target is ahead of the pusher
    clearance: float = 0.008
    min_push: float = 0.0005
    max_push: float = 0.15
    grid: float = 8
    pitch: float = 0.006  # between contacts
    push_cost: float = 3.0  # any push at all, so that putting off what has to be done never pays
    switch_cost: float = 12.0  # leaving one contact for another
    keep_bonus: float = 4.0
    leave_cost: float = 200.0  # pushing a corner of the block out of the workspace
    spread: float = 0.042  # metres that a radian is worth
    tolerance: float = 0.0015  # metres of pose distance at which the goal is probably covered
    guess_cost: float = 25.0  # what comes after two pushes: one more
    guess_speed: float = 0.003
    stuck_cost: float = 60.0
    border: float = 0.002


class Expert:
    """Pushes the T to `goal_pose` (3,): x, y in metres and the angle. Deterministic."""

    def __init__(
        self,
        goal_pose: np.ndarray = GOAL_POSE,
        seed: int = 0,
        config: ExpertConfig = ExpertConfig(),
        model: PlanarModel | None = None,
    ) -> None:
        self.goal = np.asarray(goal_pose, float)
        self.config = config
        self.pushes = Pushes(model or PlanarModel(contacts=outline_contacts(config.pitch)))
        self.map = BlockMap(self.pushes.contacts, config.clearance)
        self._centre = np.array(self.pushes.model.centre)
        self._grid = np.concatenate([[0.002], np.geomspace(0.004, config.max_push, int(config.grid))])
        self._chosen = -1
        self.reset()

    def reset(self) -> None:
        """Forget the last episode."""
        self._chosen = -1

    def act(self, pusher: np.ndarray, block_pose: np.ndarray) -> np.ndarray:
        """The next target (2,) of the pusher in metres, from its position (2,) and the block's pose (3,)."""
        pusher, pose = np.asarray(pusher, float), np.asarray(block_pose, float)
        routes = self._routes(pusher, pose)
        contact, distance = self._plan(pose, routes)
        self._chosen = contact
        step = self._step(pusher, pose, routes, contact, distance)
        return np.clip(pusher + self.config.lead * step, WORKSPACE_LOW, WORKSPACE_HIGH)

    def _routes(self, pusher: np.ndarray, pose: np.ndarray) -> Routes:
        c, s = np.cos(pose[2]), np.sin(pose[2])
        start = (pusher - pose[:2]) @ np.array([[c, -s], [s, c]])
        return self.map.routes(start, self._reachable(self.map.nodes, pose), self._reachable(self.map.approaches, pose))

    def _reachable(self, points: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """(..., N) whether the pusher can stand at points (N, 2) of the block's frame at poses (..., 3)."""
        c, s = np.cos(pose[..., 2, None]), np.sin(pose[..., 2, None])
        low, high = WORKSPACE_LOW + self.config.border, WORKSPACE_HIGH - self.config.border
        x, y = c * points[:, 0] - s * points[:, 1], s * points[:, 0] + c * points[:, 1]
        low, high = low - pose[..., None, :2], high - pose[..., None, :2]
        return (x > low[..., 0]) & (x < high[..., 0]) & (y > low[..., 1]) & (y < high[..., 1])

    def _plan(self, pose: np.ndarray, routes: Routes) -> tuple[int, float]:
        """Which contact to push at now, and how far."""
        config = self.config
        reachable = np.flatnonzero(np.isfinite(routes.lengths))
        exact = self.pushes.best(pose[None], self.goal, config.spread)[0][0, reachable]
        grid = np.broadcast_to(self._grid, (len(reachable), len(self._grid)))
        distance = np.column_stack([np.minimum(exact, config.max_push), grid])
        first = np.broadcast_to(reachable[:, None], distance.shape)
        after = self.pushes.apply(pose, first, distance)
        cost = self._approach_cost(routes)[reachable][:, None] + self._push_cost(distance)
        cost = cost + self._leaving_cost(pose, after)
        following = self._remaining_cost(after.reshape(-1, 3), routes.transits()[first.ravel()])
        cost = cost + following.reshape(cost.shape)
        cost[distance < config.min_push] = np.inf  # not pushing is no plan
        best = np.unravel_index(np.argmin(cost), cost.shape)
        return int(first[best]), float(distance[best])

    def _approach_cost(self, routes: Routes) -> np.ndarray:
        cost = routes.lengths / self.config.free_speed + self.config.switch_cost * ~routes.inside
        if self._chosen >= 0 and not routes.inside[self._chosen]:
            cost[self._chosen] -= self.config.keep_bonus
        return cost

    def _push_cost(self, distance: np.ndarray) -> np.ndarray:
        return self.config.push_cost + distance / self.config.push_speed

    def _leaving_cost(self, pose: np.ndarray, after: np.ndarray) -> np.ndarray:
        return self.config.leave_cost * np.maximum(_excess(after) - _excess(pose), 0.0) / 0.01

    def _remaining_cost(self, pose: np.ndarray, transits: np.ndarray) -> np.ndarray:
        """Steps (M,) to the goal from poses (M, 3): one more push, `transits` (M, N) metres away, and a guess."""
        config = self.config
        now = pose_distance(pose, self.goal, config.spread, self._centre)
        distance, left = self.pushes.best(pose, self.goal, config.spread)
        cost = transits / config.free_speed + config.switch_cost + self._push_cost(distance) + self._guess(left)
        possible = (distance > 0) & (distance < config.max_push) & self._reachable(self.map.approaches, pose)
        cost = np.where(possible, cost, np.inf).min(axis=1)
        # A guess here is less sober than one a push further on: only a pose that will do may do without that push.
        stay = self._guess(now) + np.where(now < config.tolerance, 0.0, config.stuck_cost)
        return np.minimum(stay, cost)

    def _guess(self, distance: np.ndarray) -> np.ndarray:
        """Steps that a pose distance [m] will still take: one more push unless it is small, and longer if it is not."""
        config = self.config
        unlikely = distance**2 / (distance**2 + config.tolerance**2)
        return unlikely * (config.guess_cost + distance / config.guess_speed)

    def _step(self, pusher: np.ndarray, pose: np.ndarray, routes: Routes, contact: int, distance: float) -> np.ndarray:
        """How far (2,) the pusher should move in this step."""
        config = self.config
        if routes.inside[contact]:
            speed = float(np.clip(config.slowing * distance + config.slow_speed, 0.0, config.push_speed))
            ahead = self.pushes.apply(pose, np.array(contact), np.array(speed))
            way = transform(self.map.places[[contact]], ahead)[0] - pusher
            return way * min(1.0, speed / max(float(np.linalg.norm(way)), 1e-9))
        waypoints = transform(routes.path(contact)[:-1], pose)
        return _along(waypoints, config.free_speed) - pusher


def _along(waypoints: np.ndarray, distance: float) -> np.ndarray:
    """The point (2,) that lies `distance` along a polyline (K, 2), or its end."""
    for start, end in itertools.pairwise(waypoints):
        length = float(np.linalg.norm(end - start))
        if distance <= length:
            return start + (end - start) * (distance / max(length, 1e-12))
        distance -= length
    return waypoints[-1]


def _excess(pose: np.ndarray) -> np.ndarray:
    """How far (...,) the corners of the block stand outside the workspace at poses (..., 3), in metres, at most."""
    c, s = np.cos(pose[..., 2, None]), np.sin(pose[..., 2, None])
    x = pose[..., 0, None] + c * T_CORNERS[:, 0] - s * T_CORNERS[:, 1]
    y = pose[..., 1, None] + s * T_CORNERS[:, 0] + c * T_CORNERS[:, 1]
    corners = np.stack([x, y], axis=-1)
    outside = np.maximum(np.maximum(WORKSPACE_LOW - corners, corners - WORKSPACE_HIGH), 0.0)
    return outside.max(axis=(-1, -2))
