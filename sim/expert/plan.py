"""Planning of the next push with a horizon of two pushes in the planar model, minimising time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from sim.expert.path import BlockMap, Routes
from sim.geometry import T_CORNERS, WORKSPACE_HIGH, WORKSPACE_LOW
from sim.interface import WALL
from sim.planar import PlanarModel, Pushes, outline_contacts, pose_distance


@dataclass(frozen=True)
class PlanConfig:
    """Lengths in metres, speeds in metres a step (0.1 s), costs in steps."""

    free_speed: float = 0.016
    push_speed: float = 0.008
    pitch: float = 0.006  # between neighbouring contacts
    distances: tuple[float, ...] = (0.002, *np.geomspace(0.004, 0.15, 8).tolist())
    """Lengths of a first push that are tried, besides the one that ends nearest to the goal."""
    min_push: float = 0.0005
    clearance: float = 0.008  # between pusher and block on the way
    border: float = 0.002  # between the pusher's centre and the end of the workspace
    spread: float = 0.042  # weight of a radian in metres: about the block's radius of gyration
    push_cost: float = 3.0  # fixed cost of a push, so that postponing a necessary one never pays
    switch_cost: float = 12.0  # changing the contact, besides the path
    keep_bonus: float = 4.0  # for keeping the last contact
    leave_cost: float = 20000.0  # pushing a corner of the block into a wall, steps per metre; the model has no walls
    tolerance: float = 0.0015  # the pose distance at which the goal counts as covered
    guess_cost: float = 25.0
    guess_speed: float = 0.003
    """Heuristic cost of a pose that two pushes do not bring to the goal: another push plus distance / speed."""
    stuck_cost: float = 60.0  # a pose from which no second push is possible


@dataclass(frozen=True)
class Plan:
    """Push at a contact (its index) by a distance in metres along its normal."""

    contact: int
    distance: float


class Planner:
    """Plans pushes to `goal_pose` (3,): x, y in metres and the angle."""

    def __init__(self, goal_pose: np.ndarray, config: PlanConfig) -> None:
        self.goal = np.asarray(goal_pose, float)
        self.config = config
        self.pushes = Pushes(PlanarModel(contacts=outline_contacts(config.pitch)))
        self.map = BlockMap(self.pushes.contacts, config.clearance)

    def routes(self, pusher: np.ndarray, pose: np.ndarray) -> Routes:
        """Paths from the pusher (2,) to the contacts of a block at `pose` (3,)."""
        c, s = np.cos(pose[2]), np.sin(pose[2])
        corners = shapely.box(*(WORKSPACE_LOW + self.config.border), *(WORKSPACE_HIGH - self.config.border)).exterior
        points = (np.vstack([pusher, corners.coords]) - pose[:2]) @ np.array([[c, -s], [s, c]])
        return self.map.routes(points[0], shapely.Polygon(points[1:]))

    def plan(self, pose: np.ndarray, routes: Routes, chosen: int | None) -> Plan | None:
        """The best first push; `chosen` is the contact of the last plan. None if no contact can be reached."""
        config = self.config
        contacts = np.flatnonzero(np.isfinite(routes.lengths))
        if len(contacts) == 0:
            return None
        exact = self.pushes.best(pose[None], self.goal, config.spread)[0][0, contacts]
        exact = np.minimum(exact, max(config.distances))
        distance = np.column_stack([exact, *(np.full(len(contacts), d) for d in config.distances)])
        first = np.broadcast_to(contacts[:, None], distance.shape)
        after = self.pushes.apply(pose, first, distance)
        cost = self._way_cost(routes, chosen)[first] + self._push_cost(distance) + self._leaving_cost(pose, after)
        rest = self._remaining_cost(after.reshape(-1, 3), routes.transits()[first.ravel()]).reshape(cost.shape)
        cost = np.where(distance < config.min_push, np.inf, cost + rest)  # not pushing is no plan
        best = np.unravel_index(np.argmin(cost), cost.shape)
        return Plan(int(first[best]), max(float(distance[best]), config.min_push))

    def _free(self, points: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """(..., N) whether points (N, 2) of the block's frame are free for the pusher at poses (..., 3)."""
        c, s = np.cos(pose[..., 2, None]), np.sin(pose[..., 2, None])
        x, y = c * points[:, 0] - s * points[:, 1], s * points[:, 0] + c * points[:, 1]
        low = WORKSPACE_LOW + self.config.border - pose[..., None, :2]
        high = WORKSPACE_HIGH - self.config.border - pose[..., None, :2]
        return (x > low[..., 0]) & (x < high[..., 0]) & (y > low[..., 1]) & (y < high[..., 1])

    def _way_cost(self, routes: Routes, chosen: int | None) -> np.ndarray:
        cost = routes.lengths / self.config.free_speed + self.config.switch_cost * ~routes.inside
        if chosen is not None and not routes.inside[chosen]:
            cost[chosen] -= self.config.keep_bonus
        return cost

    def _push_cost(self, distance: np.ndarray) -> np.ndarray:
        return self.config.push_cost + distance / self.config.push_speed

    def _leaving_cost(self, pose: np.ndarray, after: np.ndarray) -> np.ndarray:
        return self.config.leave_cost * np.maximum(_outside(after) - _outside(pose), 0.0)

    def _remaining_cost(self, pose: np.ndarray, transits: np.ndarray) -> np.ndarray:
        """Steps (M,) to the goal from poses (M, 3): one more push, `transits` (M, N) metres away, and a guess."""
        config = self.config
        now = pose_distance(pose, self.goal, config.spread, np.array(self.pushes.model.centre))
        distance, left = self.pushes.best(pose, self.goal, config.spread)
        cost = transits / config.free_speed + config.switch_cost + self._push_cost(distance) + self._guess(left)
        possible = (distance > 0) & (distance < max(config.distances)) & self._free(self.map.approaches, pose)
        cost = np.where(possible, cost, np.inf).min(axis=1)
        # The heuristic is more optimistic here than one push later, so it is used only where no push is needed.
        stay = self._guess(now) + np.where(now < config.tolerance, 0.0, config.stuck_cost)
        return np.minimum(stay, cost)

    def _guess(self, distance: np.ndarray) -> np.ndarray:
        """Heuristic number of steps for a pose distance [m]."""
        config = self.config
        unlikely = distance**2 / (distance**2 + config.tolerance**2)
        return unlikely * (config.guess_cost + distance / config.guess_speed)


def _outside(pose: np.ndarray) -> np.ndarray:
    """Largest penetration (...,) of the block's corners into the walls at poses (..., 3), metres."""
    c, s = np.cos(pose[..., 2, None]), np.sin(pose[..., 2, None])
    x = pose[..., 0, None] + c * T_CORNERS[:, 0] - s * T_CORNERS[:, 1]
    y = pose[..., 1, None] + s * T_CORNERS[:, 0] + c * T_CORNERS[:, 1]
    corners = np.stack([x, y], axis=-1)
    low, high = WORKSPACE_LOW + WALL, WORKSPACE_HIGH - WALL
    return np.maximum(np.maximum(low - corners, corners - high), 0.0).max(axis=(-1, -2))
