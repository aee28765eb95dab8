"""A generated dataset of a robot that has no simulator: two arms of seven joints, two cameras, 30 fps."""

from pathlib import Path

import numpy as np

from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.interfaces import ACTION, IMAGES, STATE, Feature, Interface

HEAD, WRIST = IMAGES + "head", IMAGES + "wrist"
TASK = "Move the red square along with both arms."
JOINTS = tuple(f"{side}_joint_{i}" for side in ("left", "right") for i in range(7))


def bimanual_interface() -> Interface:
    joints = Feature("float32", (14,), JOINTS, ("rad",) * 14)
    return Interface(
        {STATE: joints, HEAD: Feature("image", (64, 80, 3)), WRIST: Feature("image", (48, 48, 3))}, joints, 30, "base"
    )


def bimanual_episode(rng: np.random.Generator, length: int) -> tuple[dict, dict]:
    """Joints swing smoothly, the action is where they are two frames later, and the cameras see joints 0 and 7."""
    t = np.arange(length + 2)[:, None] / 30
    path = 0.8 * np.sin(2 * np.pi * rng.uniform(0.2, 0.6, 14) * t + rng.uniform(0, 2 * np.pi, 14))
    columns = {STATE: path[:length].astype(np.float32), ACTION: path[2:].astype(np.float32)}
    images = {}
    for key, (height, width), joint in ((HEAD, (64, 80), 0), (WRIST, (48, 48), 7)):
        frames = np.full((length, height, width, 3), (200, 190, 170), np.uint8)
        for frame, angle in zip(frames, path[:, joint], strict=False):
            left = int((0.5 + 0.4 * angle) * (width - 16))
            frame[16:32, left : left + 16] = (190, 40, 30)
        images[key] = frames
    return columns, images


def make_bimanual_dataset(root: Path, episodes: int = 6, length: int = 60, codec: str = "h264") -> LeRobotDataset:
    """Write `episodes` episodes of `length`, `length` + 1, ... frames to `root`."""
    rng = np.random.default_rng(0)
    with LeRobotWriter(root, bimanual_interface(), robot_type="bimanual", codec=codec) as writer:
        for i in range(episodes):
            writer.add_episode(*bimanual_episode(rng, length + i), TASK)
    return LeRobotDataset(root)


def add_bimanual_episode(root: Path) -> None:
    """Append an episode of 5 frames and another task."""
    with LeRobotWriter(root, bimanual_interface()) as writer:
        writer.add_episode(*bimanual_episode(np.random.default_rng(7), 5), "another task")
