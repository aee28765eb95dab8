"""What a planner imagines, drawn into a picture of the scene."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from sim.cameras import Camera
from sim.geometry import T_SHAPE, pose_from_features, transform
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE

HEIGHT = 0.016  # metres above the table, of lines: just above the block
PUSHER, BLOCK = (230, 60, 40), (250, 150, 20)


def draw_plan(picture: np.ndarray, camera: Camera, plan: Mapping[str, np.ndarray]) -> np.ndarray:
    """The picture (H, W, 3) with the pusher's way and the block's last outline, of imagined states (T, D) by key."""
    image = Image.fromarray(picture)
    draw, width = ImageDraw.Draw(image), max(1, picture.shape[1] // 192)

    def line(points: np.ndarray, colour: tuple[int, int, int]) -> None:
        pixels = camera.project(np.column_stack([points, np.full(len(points), HEIGHT)]))
        draw.line([(float(x), float(y)) for x, y in pixels], colour, width, joint="curve")

    if ENVIRONMENT_STATE in plan:
        line(transform(np.array(T_SHAPE.exterior.coords), pose_from_features(plan[ENVIRONMENT_STATE][-1])), BLOCK)
    if STATE in plan and len(plan[STATE]) > 1:
        line(plan[STATE][:, :2], PUSHER)
    return np.asarray(image)
