"""Isometries that map a PushT scene onto itself, and where cameras see the table, for `data.symmetries`."""

from __future__ import annotations

import numpy as np

from sim.config import PushTConfig
from sim.geometry import PIXEL, WORKSPACE_CENTRE, WORKSPACE_HALF, WORKSPACE_PIXELS
from vla_policy.interfaces import InputError

SYMMETRIES = ("mirror",)


def isometry(name: str, config: PushTConfig) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (2, 2) and offset (2,) of p -> matrix p + offset.

    "mirror" is the reflection about the goal's own axis. The block is symmetric about its x axis, so goal and coverage
    stay; the walls stay if the axis is one of the square workspace's. `InputError` if they do not, or with several
    goals, of which no reflection keeps all.
    """
    if name not in SYMMETRIES:
        raise InputError(f"data.symmetries: expected some of {list(SYMMETRIES)}, found {name!r}")
    if config.goals:
        raise InputError(f"data.symmetries: {name}: expected a scene with a single goal, found {len(config.goals)}")
    x, y, angle = config.goal_pose
    c, s = np.cos(2 * angle), np.sin(2 * angle)
    matrix = np.array([[c, s], [s, -c]])
    corner = WORKSPACE_HALF * np.array([1.0, 1.0])
    offset = np.array([x, y]) - matrix @ [x, y]
    centre_stays = np.allclose(matrix @ WORKSPACE_CENTRE + offset, WORKSPACE_CENTRE, atol=1e-9)
    if not (centre_stays and np.allclose(np.abs(matrix @ corner), corner)):
        raise InputError(
            f"data.symmetries: {name}: expected a goal whose axis is one of the workspace's, found {config.goal_pose}"
        )
    return matrix, offset


def table_homography(name: str, config: PushTConfig, env: str) -> np.ndarray:
    """Matrix (3, 3) from (x, y, 1) on the table in metres to multiples of (u, v, 1), places in a camera's picture from
    its upper left corner (0, 0) to its lower right one (1, 1), so that it holds for pictures of any size.
    """
    if env == "gym_pusht":  # its one camera looks straight down at the workspace
        scale = 1 / (WORKSPACE_PIXELS * PIXEL)
        x, y = WORKSPACE_CENTRE + WORKSPACE_HALF
        return np.array([[0.0, -scale, scale * y], [-scale, 0.0, scale * x], [0.0, 0.0, 1.0]])
    from sim.cameras import Camera

    camera = Camera(config.cameras[name])
    size = camera.config.size
    matrix: np.ndarray = np.diag([1 / size, 1 / size, 1]) @ camera.intrinsics @ camera.extrinsics[:3][:, [0, 1, 3]]
    return matrix
