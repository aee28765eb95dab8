"""What an imagined future of PushT is worth, for a planner; what any robot can want is in `vla_policy.planning`.

A future has `observation.environment_state` (K, F, 4), the block's pose, of K candidates over F steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.geometry import GOAL_POSE, T_CORNERS, transform
from vla_policy.interfaces import ENVIRONMENT_STATE, Future


def corner_distance(features: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The mean distance (...) of the T's corners at poses (..., 4) x, y, cos, sin from their places at `goal` (3,)."""
    cos, sin = features[..., 2], features[..., 3]
    scale = np.maximum(np.hypot(cos, sin), 1e-9)
    rotation = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2) / scale[..., None, None]
    corners = T_CORNERS @ np.swapaxes(rotation, -1, -2) + features[..., None, :2]
    distances: np.ndarray = np.linalg.norm(corners - transform(T_CORNERS, goal), axis=-1).mean(-1)
    return distances


@dataclass(frozen=True)
class Progress:
    """How near the block comes to `goal` (x, y, angle), in metres, on average over the future."""

    goal: tuple[float, ...] = tuple(GOAL_POSE.tolist())

    def __call__(self, future: Future) -> np.ndarray:
        near: np.ndarray = -corner_distance(future[ENVIRONMENT_STATE], np.array(self.goal)).mean(1)
        return near
