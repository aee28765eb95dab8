"""Small generated datasets of a point robot, each in its own range of states, to be mixed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.interfaces import ACTION, IMAGES, STATE, Feature, Interface

TOP, WRIST = IMAGES + "top", IMAGES + "wrist"
XY = Feature("float32", (2,), ("x", "y"), ("m", "m"))


def make_small_dataset(
    root: Path,
    cameras: Sequence[str] = (TOP,),
    tasks: Sequence[str] = ("push",),
    offset: float = 0.0,
    episodes: int = 4,
    length: int = 20,
    size: int = 32,
    **interface: Any,
) -> LeRobotDataset:
    """States are random in [offset, offset + 1], actions those of the next frame; pictures are random large squares."""
    observations = {STATE: XY, **{key: Feature("image", (size, size, 3)) for key in cameras}}
    values = {"observations": observations, "action": XY, "fps": 10, "frame": "base"} | interface
    agreed = Interface(**values)
    rng = np.random.default_rng(0)
    with LeRobotWriter(root, agreed) as writer:
        for i in range(episodes):
            dims = agreed.observations[STATE].shape[0]
            path = (offset + rng.random((length + 1, dims))).astype(np.float32)
            images = {
                key: rng.integers(30, 255, (length, 4, 4, 3), np.uint8).repeat(size // 4, 1).repeat(size // 4, 2)
                for key in cameras
            }
            columns = {STATE: path[:-1], ACTION: path[1:, : agreed.action.shape[0]]}
            writer.add_episode(columns, images, tasks[i % len(tasks)])
    return LeRobotDataset(root)
