"""The T block, its pose and its coverage of the goal, in metres in the arm's base frame (x forward, y left).

gym-pusht uses pixels with y pointing down; `PIXEL` metres per pixel and `WORKSPACE_CENTRE` define the map, a
reflection, so that angles change their sign.
"""

from __future__ import annotations

import numpy as np
from shapely import affinity
from shapely.geometry import Polygon, box
from shapely.ops import unary_union

PIXEL = 0.00075  # metres
WORKSPACE_PIXELS = 512
WORKSPACE_CENTRE = np.array([0.45, 0.0])  # metres, where pixel (256, 256) lies
WORKSPACE_HALF = WORKSPACE_PIXELS * PIXEL / 2
WORKSPACE_LOW = WORKSPACE_CENTRE - WORKSPACE_HALF
WORKSPACE_HIGH = WORKSPACE_CENTRE + WORKSPACE_HALF
PUSHER_RADIUS = 15 * PIXEL
GOAL_POSE = np.array([0.45, 0.0, -np.pi / 4])  # x, y, angle
SUCCESS_COVERAGE = 0.95

# In the block's own frame the origin is the middle of the bar's outer edge (as in gym-pusht, where poses are given
# for that point), the bar lies along y and the stem points to -x.
_UNIT = 30 * PIXEL
BAR = box(-_UNIT, -2 * _UNIT, 0.0, 2 * _UNIT)
STEM = box(-4 * _UNIT, -_UNIT / 2, -_UNIT, _UNIT / 2)
T_SHAPE: Polygon = unary_union([BAR, STEM])
T_CORNERS = np.array(T_SHAPE.exterior.coords)[:-1]  # (8, 2) metres


def wrap_angle(angle: float | np.ndarray) -> np.ndarray:
    """The same angle in [-pi, pi)."""
    return np.asarray((np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi)


def position_from_pixels(pixels: np.ndarray) -> np.ndarray:
    """Pixel positions (..., 2) as x, y in metres."""
    return WORKSPACE_CENTRE + (WORKSPACE_PIXELS / 2 - np.asarray(pixels, float)[..., ::-1]) * PIXEL


def position_to_pixels(position: np.ndarray) -> np.ndarray:
    """Positions (..., 2) in metres as pixel x, y."""
    return (WORKSPACE_PIXELS / 2 - (np.asarray(position, float) - WORKSPACE_CENTRE) / PIXEL)[..., ::-1]


def pose_from_pixels(pose: np.ndarray) -> np.ndarray:
    """gym-pusht block poses (..., 3) of x, y in pixels and angle as x, y in metres and angle."""
    pose = np.asarray(pose, float)
    return np.concatenate([position_from_pixels(pose[..., :2]), wrap_angle(-pose[..., 2:])], axis=-1)


def pose_to_pixels(pose: np.ndarray) -> np.ndarray:
    """Block poses (..., 3) in metres as gym-pusht's x, y in pixels and angle."""
    pose = np.asarray(pose, float)
    return np.concatenate([position_to_pixels(pose[..., :2]), wrap_angle(-pose[..., 2:])], axis=-1)


def transform(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Points (N, 2) of the block's frame in world coordinates, for a pose (3,): x, y, angle."""
    c, s = np.cos(pose[2]), np.sin(pose[2])
    return np.asarray(points) @ np.array([[c, s], [-s, c]]) + pose[:2]


def relative_pose(pose: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """A pose (3,) in the frame of another one."""
    (place,) = transform((pose[:2] - origin[:2])[None], np.array([0.0, 0.0, -origin[2]]))
    return np.append(place, wrap_angle(pose[2] - origin[2]))


def block_polygon(pose: np.ndarray) -> Polygon:
    """The T at a pose (3,)."""
    return affinity.affine_transform(
        T_SHAPE, [np.cos(pose[2]), -np.sin(pose[2]), np.sin(pose[2]), np.cos(pose[2]), pose[0], pose[1]]
    )


def coverage(block_pose: np.ndarray, goal_pose: np.ndarray = GOAL_POSE) -> float:
    """Area of the intersection of block and goal, divided by the area of the goal."""
    goal = block_polygon(goal_pose)
    return float(goal.intersection(block_polygon(block_pose)).area / goal.area)


def reward(coverage: float) -> float:
    """gym-pusht's reward: coverage over the success threshold, clipped to [0, 1]."""
    return float(np.clip(coverage / SUCCESS_COVERAGE, 0.0, 1.0))


def pose_features(pose: np.ndarray) -> np.ndarray:
    """Poses (..., 3) as x, y, cos, sin (..., 4), without the wrap of the angle."""
    pose = np.asarray(pose, float)
    return np.concatenate([pose[..., :2], np.cos(pose[..., 2:]), np.sin(pose[..., 2:])], axis=-1)


def pose_from_features(features: np.ndarray) -> np.ndarray:
    """The inverse of `pose_features`: (..., 4) as poses (..., 3)."""
    features = np.asarray(features, float)
    return np.concatenate([features[..., :2], np.arctan2(features[..., 3:4], features[..., 2:3])], axis=-1)
