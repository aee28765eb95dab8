"""Shared by both PushT environments: the interface, its spaces, validation of actions, the start."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import shapely
from gymnasium import spaces

from sim.config import FPS
from sim.geometry import (
    PIXEL,
    PUSHER_RADIUS,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    block_polygon,
    pose_features,
    pose_from_pixels,
    position_from_pixels,
)
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, GOAL_STATE, IMAGES, STATE, Feature, InputError, Interface

WALL = 7 * PIXEL  # metres from the workspace's edge to the walls' inner faces
CLEARANCE = 0.0005  # metres between bodies after `separate`
_MARGIN = 0.2  # metres beyond the workspace that observations may reach
FAR = 1.2  # metres, more than between any two observable positions


def pusht_interface(image_sizes: Mapping[str, int], goals: bool = False) -> Interface:
    """The interface with square images of these cameras: {name: pixels}; of a table with one goal, or several."""
    pose = Feature("float32", (4,), ("x", "y", "cos", "sin"), ("m", "m", "1", "1"))
    observations = {STATE: Feature("float32", (2,), ("x", "y"), ("m", "m")), ENVIRONMENT_STATE: pose}
    if goals:
        observations[GOAL_STATE] = pose
    for name, size in image_sizes.items():
        observations[IMAGES + name] = Feature("image", (size, size, 3))
    return Interface(observations, Feature("float32", (2,), ("x", "y"), ("m", "m")), FPS, "base")


def observation_space(interface: Interface) -> spaces.Dict:
    low, high = WORKSPACE_LOW - _MARGIN, WORKSPACE_HIGH + _MARGIN
    boxes: dict[str, spaces.Space] = {
        STATE: spaces.Box(low.astype(np.float32), high.astype(np.float32)),
        ENVIRONMENT_STATE: spaces.Box(
            np.append(low, [-1, -1]).astype(np.float32), np.append(high, [1, 1]).astype(np.float32)
        ),
    }
    if GOAL_STATE in interface.observations:
        high = np.array([FAR, FAR, 1, 1], np.float32)
        boxes[GOAL_STATE] = spaces.Box(-high, high)
    for key in interface.cameras:
        boxes[key] = spaces.Box(0, 255, interface.observations[key].shape, np.uint8)
    return spaces.Dict(boxes)


def action_space() -> spaces.Box:
    """Targets of the pusher: x, y in metres."""
    return spaces.Box(WORKSPACE_LOW.astype(np.float32), WORKSPACE_HIGH.astype(np.float32))


def vectors(pusher: np.ndarray, block_pose: np.ndarray) -> dict[str, np.ndarray]:
    """The observation but for its images, from the pusher (2,) and the block (3,)."""
    return {STATE: pusher.astype(np.float32), ENVIRONMENT_STATE: pose_features(block_pose).astype(np.float32)}


def check_vector(value: object, size: int, name: str = ACTION) -> np.ndarray:
    """`value` as a finite float array (size,), or `InputError`."""
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{name}: expected {size} numbers, found {value!r}") from None
    if array.shape != (size,):
        raise InputError(f"{name}: expected shape ({size},), found {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name}: expected finite numbers, found {array.tolist()}")
    return array


def draw_start(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pusher (2,) and block pose (3,) as gym-pusht's `reset` draws them.

    gym-pusht places the block's centre of mass while its angle is zero and turns the block about it afterwards.
    """
    pusher = np.array([generator.integers(50, 450), generator.integers(50, 450)])
    corner = np.array([generator.integers(100, 400), generator.integers(100, 400)], float)
    angle = generator.uniform(-np.pi, np.pi)
    centre = 45.0 * np.array([np.sin(angle), 1 - np.cos(angle)])
    return position_from_pixels(pusher), pose_from_pixels(np.append(corner + centre, angle))


def separate(pusher: np.ndarray, block_pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A start without overlaps: the block moved inside the walls, then the pusher to the nearest free place.

    Both are the shortest moves; a start without overlaps is unchanged.
    """
    low, high = WORKSPACE_LOW + WALL + CLEARANCE, WORKSPACE_HIGH - WALL - CLEARANCE
    bounds = np.array(block_polygon(block_pose).bounds)
    shift = np.maximum(low - bounds[:2], 0) - np.maximum(bounds[2:] - high, 0)
    block_pose = np.append(block_pose[:2] + shift, block_pose[2])
    blocked = block_polygon(block_pose).buffer(PUSHER_RADIUS, quad_segs=32)
    if blocked.contains(shapely.Point(pusher)):
        free = shapely.box(*WORKSPACE_LOW, *WORKSPACE_HIGH).difference(blocked.buffer(CLEARANCE))
        nearest, _ = shapely.ops.nearest_points(free, shapely.Point(pusher))
        pusher = np.array([nearest.x, nearest.y])
    return pusher, block_pose
