"""The test's side of a graph."""

from __future__ import annotations

import array
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sensor_msgs.msg import Image

from vla_policy.nodes import common
from vla_policy.nodes.harness import FakeRobot, Spinning, Witness, pose_message, wait_for

__all__ = ["ROOT", "FakeRobot", "Spinning", "Witness", "image_message", "own_domain", "pose_message", "wait_for"]
ROOT = Path(__file__).parents[2]


@contextmanager
def own_domain(another: int = 0) -> Iterator[Mapping[str, str]]:
    """An environment in which the graphs of other processes are not heard of, nor those with `another` number."""
    mine = {
        "ROS_DOMAIN_ID": str(1 + (os.getpid() + 50 * another) % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds.xml"),
        "OMP_NUM_THREADS": "1",
    }
    before = {key: os.environ.get(key) for key in mine}
    os.environ.update(mine)
    try:
        yield mine
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def image_message(pixels: np.ndarray, t: float) -> Image:
    height, width, _ = pixels.shape
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.stamp = common.stamp(t)
    message.data = array.array("B", pixels.tobytes())
    return message
