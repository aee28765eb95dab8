"""The test's side of a graph."""

from __future__ import annotations

import array
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, String

from vla_policy.benchmarks.ros.harness import FakeRobot, Spinning, Witness, pose_message, wait_for
from vla_policy.nodes import common
from vla_policy.robot.messages import seconds

__all__ = [
    "ROOT",
    "FakeRobot",
    "Sensors",
    "Spinning",
    "Targets",
    "Waiting",
    "Witness",
    "activate",
    "image_message",
    "own_domain",
    "pose_message",
    "spinning",
    "wait_for",
]
ROOT = Path(__file__).parents[2]


@contextmanager
def own_domain(another: int = 0) -> Iterator[Mapping[str, str]]:
    """An environment of a domain that no other run of the tests uses, nor another worker of this one, nor a graph with
    `another` number, 0 to 3.

    The four are a quarter of all domains apart, workers 12. All are from 1 to 100: 0 is everybody's, and the ports of
    those above 101 are ones that Linux gives to any program.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    first = os.getppid() + 12 * int(worker.removeprefix("gw")) if worker else os.getpid()
    mine = {
        "ROS_DOMAIN_ID": str(1 + (first + 25 * another) % 100),
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


class Waiting:
    """How long a process has waited for a processor since this was made: what a busy computer takes from it."""

    def __init__(self, pid: int) -> None:
        self._pid, self._begin, self._before = pid, time.monotonic(), _waited(pid)

    def seconds(self) -> float:
        """Of the thread that waited longest; a wait that began before is counted from the beginning of this."""
        elapsed = time.monotonic() - self._begin
        now = _waited(self._pid).items()
        return max((min(elapsed, waited - self._before.get(thread, 0.0)) for thread, waited in now), default=0.0)


def _waited(pid: int) -> dict[str, float]:
    """Seconds in a run queue, by thread; Linux counts them in /proc/PID/task/TID/schedstat."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            found[task.name] = 1e-9 * int((task / "schedstat").read_text().split()[1])
    return found


@contextmanager
def spinning(make: Callable[[], Any], *parameters: str) -> Iterator[Any]:
    """The node that `make` makes with these parameters, spinning in a thread of this process."""
    rclpy.init(args=["--ros-args", *(word for parameter in parameters for word in ("-p", parameter))])
    node, executor = make(), SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        node.close()
        executor.shutdown(0)
        thread.join(5)
        node.destroy_node()
        rclpy.try_shutdown()


def activate(node: Any) -> None:
    """Configure a node with a model, let it see, and activate it."""
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    wait_for(lambda: node.perception.problem() == "", "observations")
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS


class Sensors(Spinning):
    """The pictures and poses of a simulated arm that stands still, and what the policy's node says to them."""

    def __init__(self) -> None:
        super().__init__("sensors")
        self.stops: list[bool] = []
        self._image = self.create_publisher(Image, "/pusht_sim/camera/image_raw", common.IMAGE_QOS)
        self._pose = self.create_publisher(PoseStamped, "/pusht_sim/ee_pose", common.STATE_QOS)
        self._task = self.create_publisher(String, "task", common.LATCHED_QOS)
        self.create_subscription(Bool, "policy/stop", lambda m: self.stops.append(m.data), 50)
        self._ticker = common.Ticker(0.1, self._live)

    def tell(self, instruction: str) -> None:
        self._task.publish(String(data=instruction))

    def close(self) -> None:
        self._ticker.close()
        super().close()

    def _live(self) -> None:
        now = time.time()
        self._pose.publish(pose_message(np.zeros(2), now))
        self._image.publish(image_message(np.zeros((96, 96, 3), np.uint8), now))


class Targets:
    """What `teleop/target` says to `node`, and whether it moves no faster than it may."""

    def __init__(self, node: Node) -> None:
        self.stamps: list[float] = []
        self.positions: list[np.ndarray] = []
        node.create_subscription(JointState, "teleop/target", self._on_target, 50)

    def require_slow(self, step: float, start: np.ndarray | None = None) -> None:
        """No channel by more than `step` a tick of 20 ms. A target may be lost, and one tick late; on a busy computer
        the hand may let go, and then it begins again within a step from `start`, where the arm stays.
        """
        ticks = np.round(np.diff(self.stamps) * 50) + 1
        slow = np.abs(np.diff(self.positions, axis=0)).max(axis=1) <= ticks * step + 1e-9
        if start is not None:
            slow |= np.abs(np.array(self.positions[1:]) - start).max(axis=1) <= step + 1e-9
        assert slow.all()

    def _on_target(self, message: JointState) -> None:
        self.stamps.append(seconds(message.header.stamp))
        self.positions.append(np.array(message.position))


def image_message(pixels: np.ndarray, t: float) -> Image:
    height, width, _ = pixels.shape
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.stamp = common.stamp(t)
    message.data = array.array("B", pixels.tobytes())
    return message
